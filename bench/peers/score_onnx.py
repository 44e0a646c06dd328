#!/usr/bin/env python3
"""The network of bench/score in ONNX Runtime, from the same parameters.

    score_onnx.py FILE RUNS fp32|int8

Ids in, probabilities out: the graph has the embedding tables (one table, all slots), the experts' first layers and the
gates as one product, the second layers batched. int8 is ONNX Runtime's own dynamic quantisation of that graph. One
thread, all graph optimisations. Prints JSON: median and fewest microseconds of CPU by candidates, probabilities of FILE's ids."""
import json
import os
import sys
import time
from statistics import median

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

SIZES = [1, 50, 200, 1000]
E, T, SLOTS, DIM = 8, 2, 24, 16


def read(path):
    with open(path, "rb") as f:
        _, _, batches, B, slots, per_slot, dim, n_dense = np.fromfile(f, "<u4", 8)
        ids = np.fromfile(f, "<u4", batches * B * slots).reshape(-1, slots).astype(np.int64)
        np.fromfile(f, np.uint8, batches * B * 2)
        rows = np.fromfile(f, "<f4", slots * per_slot * dim).reshape(-1, dim)
        dense = np.fromfile(f, "<f4", n_dense)
    names = json.load(open(path + ".json"))
    return ids, rows, {k: dense[o:o + r * c].reshape(r, c) for k, (o, r, c) in names.items()}, int(per_slot)


def export(rows, p, path):
    nodes, weights = [], []

    def const(name, value):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    node("Gather", [const("table", rows), "ids"], "e")
    node("Reshape", ["e", const("flat", np.array([-1, SLOTS * DIM], np.int64))], "x")
    first = np.concatenate([p[f"expert.{i}.0.weight"] for i in range(E)]).T
    node("MatMul", ["x", const("w0", first)], "h0")
    node("Add", ["h0", const("b0", np.concatenate([p[f"expert.{i}.0.bias"][0] for i in range(E)]))], "h1")
    node("Relu", ["h1"], "h2")
    for i in range(E):
        hidden = p[f"expert.{i}.0.weight"].shape[0]
        node("Slice", ["h2", const(f"from{i}", np.array([i * hidden], np.int64)),
                       const(f"to{i}", np.array([(i + 1) * hidden], np.int64)), const(f"axis{i}", np.array([1], np.int64))], f"s{i}")
        node("MatMul", [f"s{i}", const(f"w1.{i}", p[f"expert.{i}.1.weight"].T)], f"m{i}")
        node("Add", [f"m{i}", const(f"b1.{i}", p[f"expert.{i}.1.bias"][0])], f"a{i}")
        node("Relu", [f"a{i}"], f"r{i}")
        node("Unsqueeze", [f"r{i}", const(f"u{i}", np.array([1], np.int64))], f"f{i}")
    node("Concat", [f"f{i}" for i in range(E)], "experts", axis=1)  # (B, E, 128)
    for t in range(T):
        node("MatMul", ["x", const(f"g{t}", p[f"gate.{t}.weight"].T)], f"gl{t}")
        node("Softmax", [f"gl{t}"], f"gs{t}", axis=1)
        node("Unsqueeze", [f"gs{t}", const(f"gu{t}", np.array([1], np.int64))], f"gu3{t}")
        node("MatMul", [f"gu3{t}", "experts"], f"mix3{t}")
        node("Squeeze", [f"mix3{t}", const(f"gq{t}", np.array([1], np.int64))], f"mix{t}")
        node("MatMul", [f"mix{t}", const(f"t0{t}", p[f"tower.{t}.0.weight"].T)], f"t1{t}")
        node("Add", [f"t1{t}", const(f"t0b{t}", p[f"tower.{t}.0.bias"][0])], f"t2{t}")
        node("Relu", [f"t2{t}"], f"t3{t}")
        node("MatMul", [f"t3{t}", const(f"t4{t}", p[f"tower.{t}.logit.weight"].T)], f"t5{t}")
        node("Add", [f"t5{t}", const(f"t4b{t}", p[f"tower.{t}.logit.bias"][0])], f"t6{t}")
        node("Sigmoid", [f"t6{t}"], f"p{t}")
    node("Concat", [f"p{t}" for t in range(T)], "p", axis=1)
    graph = helper.make_graph(nodes, "mmoe", [helper.make_tensor_value_info("ids", TensorProto.INT64, ["B", SLOTS])],
                              [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["B", T])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def main():
    path, runs, precision = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    ids, rows, pieces, per_slot = read(path)
    model = path + ".onnx"
    export(rows, pieces, model)
    if precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic
        quantize_dynamic(model, path + ".int8.onnx", op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8,
                         per_channel=True, reduce_range=False)
        model = path + ".int8.onnx"
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    us, fewest = {}, {}
    for n in SIZES:
        took = []
        for i in range(runs + 3):
            batch = rng.integers(0, per_slot, (n, SLOTS)) + np.arange(SLOTS) * per_slot
            batch[:, :12] = batch[0, :12]
            before = time.process_time()
            session.run(None, {"ids": batch})
            if i >= 3:
                took.append((time.process_time() - before) * 1e6)
        us[n], fewest[n] = median(took), min(took)
    p = session.run(None, {"ids": ids})[0]
    json.dump({"onnxruntime": ort.__version__, "us": us, "fewest": fewest, "conditional": p.tolist()}, sys.stdout)
    for f in (path + ".onnx", path + ".int8.onnx"):
        if os.path.exists(f):
            os.remove(f)


if __name__ == "__main__":
    main()
