"""PyTorch's CPU kernels for torch.ts: a line of JSON in, a line of JSON out."""

import json
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    print(json.dumps({"error": str(error)}), flush=True)
    sys.exit()

torch.set_num_threads(int(sys.argv[1]))
torch.set_grad_enabled(False)
operations = {}


def read(path, shape):
    return torch.from_file(path, size=torch.Size(shape).numel()).reshape(shape).clone()


def attention(q, k, v, causal, window):
    q, k, v = read(*q), read(*k), read(*v)
    mask = None
    if window is not None:
        n, m = q.shape[2], k.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool).tril(m - n).triu(m - n - window + 1)
    options = {"attn_mask": mask, "is_causal": causal and mask is None and q.shape[2] > 1}
    if q.shape[1] != k.shape[1]:
        options["enable_gqa"] = True
    return lambda: F.scaled_dot_product_attention(q, k, v, **options)


def linear(x, weight):
    x, weight = read(*x), read(*weight)
    return lambda: F.linear(x, weight)


def answer(request):
    if "capability" in request:
        return {"version": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}
    name = request["id"]
    if "open" in request:
        operations[name] = {"attention": attention, "linear": linear}[request["open"]](**request["with"])
        return {}
    if "close" in request:
        del operations[name]
        return {}
    wall, cpu = time.perf_counter(), time.process_time()
    output = operations[name]()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if "write" in request:
        with open(request["write"], "wb") as file:
            file.write(output.contiguous().numpy().tobytes())
    return {"wall": wall * 1000, "cpu": cpu * 1000}


for line in sys.stdin:
    try:
        print(json.dumps(answer(json.loads(line))), flush=True)
    except Exception as error:  # the bench says what a peer cannot do
        print(json.dumps({"error": str(error)}), flush=True)
