"""docs/flags.md says what the tables say."""

from docs.generate_flags import PAGE, page


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make flags"


def test_no_row_breaks_its_table():
    for line in page().splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") in (4, 5)
