/* model/ops.h - ops as forward/backward pairs over nodes of a graph: one line per op in a table.
 *
 * Forward overwrites the values of the step's nodes. Backward reads their complete gradients (which it may
 * overwrite), adds into those of their inputs and into run->grads. To add an op: kernels in a file of their
 * own, a builder function in graph.c, two small functions and a line here. */
#pragma once
#include "model/workspace.h"

typedef struct slu_op_pair {
    void (*forward)(const slu_run *r, const slu_step *s);
    void (*backward)(const slu_run *r, const slu_step *s);
} slu_op_pair;

const slu_op_pair *slu_op_of(slu_op op);
