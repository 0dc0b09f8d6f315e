# Times torch's attention on a CUDA device for the shapes given as JSON: [[B, H, Hkv, Q, K, D, causal], …].
# Prints {"device": …, "ms": [[float32, float16], …]}, or {"missing": why}.
import json
import sys

try:
    import torch
    from torch.nn.functional import scaled_dot_product_attention as attend

    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA device")
except Exception as error:
    print(json.dumps({"missing": str(error)}))
    sys.exit()

times = []
for B, H, Hkv, Q, K, D, causal in json.loads(sys.argv[1]):
    row = []
    for dtype in (torch.float32, torch.float16):
        q = torch.randn(B, H, Q, D, device="cuda", dtype=dtype)
        k, v = (torch.randn(B, Hkv, K, D, device="cuda", dtype=dtype).repeat_interleave(H // Hkv, 1) for _ in "kv")
        best = float("inf")
        for i in range(13):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in "be")
            begin.record()
            attend(q, k, v, is_causal=bool(causal) and Q == K)
            end.record()
            torch.cuda.synchronize()
            best = min(best, begin.elapsed_time(end)) if i > 2 else best
        row.append(best)
    times.append(row)
print(json.dumps({"device": torch.cuda.get_device_name(), "ms": times}))
