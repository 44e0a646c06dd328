/* tests/net_reference.h - the three architectures once more, from their papers: double precision, plain
 * loops, parameters found by name. It shares no code with model/. Gradients come from differences of this
 * forward pass, which in double are exact enough to judge float ones. */
#pragma once
#include "model/net.h"
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct reference {
    const slu_net_spec *spec;
    const slu_net *net;
    const double *params; /* (P) */
    uint32_t B;
    bool train;
    double gates[64]; /* mean gate weight per task and expert */
} reference;

/* Scratch of one forward pass. */
static double ref_pool[1 << 18];
static size_t ref_used;

static double *ref_take(size_t n)
{
    if (ref_used + n > sizeof ref_pool / sizeof *ref_pool) /* ck_assert writes to a file even when it holds */
        ck_abort_msg("the reference's pool is too small");
    double *p = ref_pool + ref_used;
    ref_used += n;
    return p;
}

static const double *ref_param(const reference *r, const char *node, const char *part, uint32_t rows,
                               uint32_t cols)
{
    char name[100];
    snprintf(name, sizeof name, "%s.%s", node, part);
    for (size_t i = 0; i < slu_net_param_count(r->net); i++) {
        const slu_net_param *p = slu_net_param_at(r->net, i);
        if (strcmp(p->name, name) == 0) {
            if (p->rows != rows || p->cols != cols)
                ck_abort_msg("'%s' is (%u, %u), not (%u, %u)", name, p->rows, p->cols, rows, cols);
            return r->params + p->offset;
        }
    }
    ck_abort_msg("no parameter '%s'", name);
    return NULL;
}

static double *ref_dense(const reference *r, const char *node, const double *x, uint32_t K, uint32_t N,
                         bool bias)
{
    const double *w = ref_param(r, node, "weight", N, K), *b = bias ? ref_param(r, node, "bias", 1, N) : NULL;
    double *y = ref_take((size_t)r->B * N);
    for (uint32_t i = 0; i < r->B; i++)
        for (uint32_t j = 0; j < N; j++) {
            double sum = b ? b[j] : 0;
            for (uint32_t k = 0; k < K; k++)
                sum += x[i * K + k] * w[j * K + k];
            y[i * N + j] = sum;
        }
    return y;
}

static void ref_normalise(const reference *r, const char *node, double *y, uint32_t N)
{
    const double *gain = ref_param(r, node, "gain", 1, N), *shift = ref_param(r, node, "shift", 1, N);
    const bool batch = r->spec->norm == SLU_NET_NORM_BATCH;
    const uint32_t groups = batch ? N : r->B, size = batch ? r->B : N, step = batch ? N : 1,
                   next = batch ? 1 : N;
    for (uint32_t g = 0; g < groups; g++) {
        double *v = y + g * next, mean = 0, var = 0;
        for (uint32_t i = 0; i < size; i++)
            mean += v[i * step] / size;
        for (uint32_t i = 0; i < size; i++)
            var += (v[i * step] - mean) * (v[i * step] - mean) / size;
        if (batch && (!r->train || r->B == 1)) {
            mean = ref_param(r, node, "mean", 1, N)[g];
            var = ref_param(r, node, "variance", 1, N)[g];
        }
        for (uint32_t i = 0; i < size; i++) {
            uint32_t column = batch ? g : i;
            v[i * step] = (v[i * step] - mean) / sqrt(var + 1e-5) * gain[column] + shift[column];
        }
    }
}

static double *ref_mlp(const reference *r, const char *prefix, double *x, uint32_t *width,
                       const uint32_t *layers, uint32_t n)
{
    for (uint32_t l = 0; l < n; l++) {
        char node[64], norm[80];
        snprintf(node, sizeof node, "%s.%u", prefix, l);
        snprintf(norm, sizeof norm, "%s.norm", node);
        x = ref_dense(r, node, x, *width, layers[l], true);
        *width = layers[l];
        if (r->spec->norm != SLU_NET_NORM_NONE)
            ref_normalise(r, norm, x, *width);
        for (uint32_t i = 0; i < r->B * *width; i++)
            x[i] = fmax(x[i], 0);
    }
    return x;
}

static double *ref_mixture(reference *r, uint32_t t, const double *x, double *const *experts, uint32_t H)
{
    const uint32_t n = r->spec->experts;
    char node[64];
    snprintf(node, sizeof node, "gate.%u", t);
    double *a = ref_dense(r, node, x, r->spec->inputs, n, false), *m = ref_take((size_t)r->B * H);
    memset(m, 0, (size_t)r->B * H * sizeof *m);
    memset(r->gates + t * n, 0, n * sizeof *r->gates);
    for (uint32_t b = 0; b < r->B; b++) {
        double sum = 0;
        for (uint32_t e = 0; e < n; e++)
            sum += exp(a[b * n + e]);
        for (uint32_t e = 0; e < n; e++) {
            double g = exp(a[b * n + e]) / sum;
            r->gates[t * n + e] += g / r->B;
            for (uint32_t j = 0; j < H; j++)
                m[b * H + j] += g * experts[e][b * H + j];
        }
    }
    return m;
}

/* x (B, K) -> logits (B, T). */
static void ref_forward(reference *r, const double *x, double *logits)
{
    const slu_net_spec *s = r->spec;
    char name[64];
    ref_used = 0;
    double *shared = ref_take((size_t)r->B * s->inputs), *experts[16];
    memcpy(shared, x, (size_t)r->B * s->inputs * sizeof *x);
    uint32_t width = s->inputs, expert_width = 0;
    if (strcmp(s->architecture, "shared_bottom") == 0)
        shared = ref_mlp(r, "bottom", shared, &width, s->bottom, s->n_bottom);
    if (strcmp(s->architecture, "mmoe") == 0)
        for (uint32_t e = 0; e < s->experts; e++) {
            snprintf(name, sizeof name, "expert.%u", e);
            expert_width = s->inputs;
            experts[e] = ref_mlp(r, name, shared, &expert_width, s->expert_layers, s->n_expert_layers);
        }
    for (uint32_t t = 0; t < s->tasks; t++) {
        uint32_t w = expert_width ? expert_width : width;
        double *v = expert_width ? ref_mixture(r, t, shared, experts, expert_width) : shared;
        snprintf(name, sizeof name, "tower.%u", t);
        v = ref_mlp(r, name, v, &w, s->towers, s->n_towers);
        snprintf(name, sizeof name, "tower.%u.logit", t);
        v = ref_dense(r, name, v, w, 1, true);
        for (uint32_t b = 0; b < r->B; b++)
            logits[b * s->tasks + t] = v[b];
    }
}
