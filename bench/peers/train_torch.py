#!/usr/bin/env python3
"""The twin of bench/train in PyTorch, as fast as we could make it.

    train_torch.py FILE WARM TIMED --threads N --precision fp32|bf16 [--compile] [--rows scatter|unique|optim]

It learns the batches of FILE (bench/train_data.h) from the same first parameters with the same optimizers and prints
JSON: milliseconds of a step (median) and the mean loss of each batch. What makes it fast: one table for all slots;
only the rows of a batch get gradients; one product for all experts' first layers and the gates; batched products
for the second layers and the towers; fused Adam on parameters that are few and large; no autograd through the table.
"""
import argparse
import json
import statistics
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F


def read(path):
    with open(path, "rb") as f:
        magic, version, batches, B, slots, per_slot, dim, n_dense = np.fromfile(f, "<u4", 8)
        assert magic == 0x42554C53 and version == 1, "no file of batches"
        ids = np.fromfile(f, "<u4", batches * B * slots).reshape(batches, B, slots).astype(np.int64)
        labels = np.fromfile(f, np.uint8, batches * B * 2).reshape(batches, B, 2).astype(np.float32)
        rows = np.fromfile(f, "<f4", slots * per_slot * dim).reshape(-1, dim)
        dense = np.fromfile(f, "<f4", n_dense)
    names = json.load(open(path + ".json"))
    piece = {k: torch.from_numpy(dense[o:o + r * c].reshape(r, c).copy()) for k, (o, r, c) in names.items()}
    return torch.from_numpy(ids), torch.from_numpy(labels), torch.from_numpy(rows), piece


class Net(torch.nn.Module):
    def __init__(self, p, experts=8, tasks=2):
        super().__init__()
        self.E, self.T = experts, tasks
        par = lambda t: torch.nn.Parameter(t.contiguous())
        stack = lambda name, n: torch.stack([p[name % i] for i in range(n)])
        # (384, 8 * 256 + 2 * 8): all experts' first layers, then the gates, which have no bias.
        self.w0 = par(torch.cat([p[f"expert.{i}.0.weight"] for i in range(experts)] +
                                [p[f"gate.{t}.weight"] for t in range(tasks)]))
        self.b0 = par(torch.cat([p[f"expert.{i}.0.bias"][0] for i in range(experts)]))
        self.w1 = par(stack("expert.%d.1.weight", experts).transpose(1, 2))
        self.b1 = par(stack("expert.%d.1.bias", experts))
        self.v0 = par(stack("tower.%d.0.weight", tasks).transpose(1, 2))
        self.c0 = par(stack("tower.%d.0.bias", tasks))
        self.v1 = par(stack("tower.%d.logit.weight", tasks).transpose(1, 2))
        self.c1 = par(stack("tower.%d.logit.bias", tasks))

    def forward(self, x):
        B, H = x.shape[0], self.b0.numel()
        y = F.linear(x, self.w0)
        h = F.relu(y[:, :H] + self.b0).view(B, self.E, -1).transpose(0, 1)
        h = F.relu(torch.baddbmm(self.b1.to(h.dtype), h, self.w1.to(h.dtype)))      # (E, B, 128)
        g = F.softmax(y[:, H:].float().view(B, self.T, self.E), 2).to(h.dtype)      # (B, T, E)
        m = torch.bmm(g, h.transpose(0, 1)).transpose(0, 1)                         # (T, B, 128)
        m = F.relu(torch.baddbmm(self.c0.to(m.dtype), m, self.v0.to(m.dtype)))
        return torch.baddbmm(self.c1.to(m.dtype), m, self.v1.to(m.dtype))[:, :, 0].float()  # (T, B)


def esmm(logits, labels):
    """Summed over the batch, on the entire space: P(conversion) is the product."""
    click = logits[0]
    lp = F.logsigmoid(logits[0]) + F.logsigmoid(logits[1])
    not_p = torch.log(-torch.expm1(lp))
    y = labels[:, 1]
    return F.binary_cross_entropy_with_logits(click, labels[:, 0], reduction="sum") - (y * lp + (1 - y) * not_p).sum()


class Rows:
    """Adagrad on the rows of a batch. scatter: gradients are summed in a table of their own, equal ids are updated
    with equal values, nothing is sorted. unique: the textbook way."""

    def __init__(self, table, how, rate=0.02, eps=1e-8, initial=0):
        self.table, self.how, self.rate, self.eps = table, how, rate, eps
        self.acc = torch.full_like(table, initial)
        self.sums = torch.zeros_like(table) if how == "scatter" else None

    def gather(self, ids):
        return self.table.index_select(0, ids).view(-1, 24 * 16)

    def step(self, ids, grad):
        grad = grad.view(-1, self.table.shape[1])
        if self.how == "scatter":
            self.sums.index_add_(0, ids, grad)
            g = self.sums.index_select(0, ids)
            acc = self.acc.index_select(0, ids).addcmul_(g, g)
            new = self.table.index_select(0, ids).addcdiv_(g, acc.sqrt().add_(self.eps), value=-self.rate)
            self.acc.index_copy_(0, ids, acc)
            self.table.index_copy_(0, ids, new)
            self.sums.index_fill_(0, ids, 0)
            return
        u, inverse = torch.unique(ids, return_inverse=True)
        g = torch.zeros(u.numel(), grad.shape[1]).index_add_(0, inverse, grad)
        acc = self.acc.index_select(0, u).addcmul_(g, g)
        self.acc.index_copy_(0, u, acc)
        self.table.index_add_(0, u, g / acc.sqrt_().add_(self.eps), alpha=-self.rate)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("file")
    a.add_argument("warm", type=int)
    a.add_argument("timed", type=int)
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    a.add_argument("--compile", action="store_true")
    a.add_argument("--rows", choices=["scatter", "unique"], default="scatter")
    a = a.parse_args()
    torch.set_num_threads(a.threads)
    torch.set_flush_denormal(True)
    ids, labels, table, pieces = read(a.file)
    net = Net(pieces)
    rows = Rows(table, a.rows)
    adam = torch.optim.Adam(net.parameters(), lr=0.001, betas=(0.9, 0.999), eps=1e-8, fused=True)
    bf16 = a.precision == "bf16"
    B = labels.shape[1]

    def loss_of(x, y):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = net(x)
        loss = esmm(logits, y)
        return loss

    if a.compile:
        loss_of = torch.compile(loss_of, dynamic=False)
    losses, cpu, wall = [], [], []
    for i in range(a.warm + a.timed):
        at = ids[i].reshape(-1)
        c, w = time.process_time(), time.perf_counter()
        x = rows.gather(at).requires_grad_()
        loss = loss_of(x, labels[i])
        (loss / B).backward()
        with torch.no_grad():
            rows.step(at, x.grad * B)
        adam.step()
        adam.zero_grad(set_to_none=True)
        losses.append(loss.item() / B)
        if i >= a.warm:
            cpu.append(time.process_time() - c)
            wall.append(time.perf_counter() - w)
    json.dump({"torch": torch.__version__, "cpu_ms": 1e3 * statistics.median(cpu),
               "wall_ms": 1e3 * statistics.median(wall), "losses": losses}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
