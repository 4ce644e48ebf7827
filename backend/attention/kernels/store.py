"""New keys and values into their pages."""

import triton
import triton.language as tl


@triton.jit
def store_tokens(
    source,  # [T, kv_heads, SIZE]
    pool,  # [slots, kv_heads, SIZE]
    locations,  # int32[T]
    stride,
    head_stride,
    scale,  # stored numbers times this are the real ones
    limit,  # the largest number that the pool holds
    KV_HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,  # at least KV_HEADS * SIZE
):
    token = tl.program_id(0)
    location = tl.load(locations + token).to(tl.int64)
    number = tl.arange(0, BLOCK)
    real = number < KV_HEADS * SIZE
    place = source + token.to(tl.int64) * stride + number // SIZE * head_stride + number % SIZE
    numbers = tl.load(place, mask=real, other=0.0)
    if pool.dtype.element_ty != source.dtype.element_ty:
        numbers = tl.clamp(numbers.to(tl.float32) / scale, -limit, limit).to(pool.dtype.element_ty)
    tl.store(pool + location * (KV_HEADS * SIZE) + number, numbers, mask=real)
