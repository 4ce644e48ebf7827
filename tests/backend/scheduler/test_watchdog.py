import subprocess
import sys
import threading
import time

from backend.scheduler.watchdog import EXIT_CODE, Watchdog


def test_a_step_that_hangs_is_told_once():
    barked, said = threading.Event(), []
    watchdog = Watchdog(0.05, lambda: "3 rows", bark=lambda message: (said.append(message), barked.set()))
    watchdog.begin(time.monotonic())
    assert barked.wait(10)
    watchdog.close()
    assert said == ["no step ended for 0.05 s (--watchdog-timeout); 3 rows"]


def test_steps_that_end_and_idle_times_are_no_hang():
    said = []
    watchdog = Watchdog(30, lambda: "", bark=said.append)
    for _ in range(100):
        watchdog.begin(time.monotonic())
        watchdog.end()
    watchdog.close()
    assert said == []


def test_the_process_ends_with_its_stacks_in_the_log():
    script = (
        "import threading, time\n"
        "from backend.scheduler.watchdog import Watchdog\n"
        "def hanging_step():\n"
        "    threading.Event().wait()\n"
        "Watchdog(0.05, lambda: '2 rows, 7 tokens').begin(time.monotonic())\n"
        "hanging_step()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == EXIT_CODE
    assert "2 rows, 7 tokens" in done.stderr
    assert "hanging_step" in done.stderr
