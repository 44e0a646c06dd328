#include "model/products.h"
#include "base/cache_line.h"
#include "model/bf16.h"
#include "model/onednn.h"
#include "model/weights.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

/* Rows of a piece of y and dx, and samples that dW sums at once: largest first, the last one
 * SLU_PRODUCTS_ROWS. Of dW there are one or two pieces of rows. */
enum { SIZES = 3, DEPTHS = 5, HALVES = 2, MOST_ROWS = 128 };
static const uint32_t sizes[SIZES] = {MOST_ROWS, 64, SLU_PRODUCTS_ROWS};
static const uint32_t depths[DEPTHS] = {512, 256, 128, 64, SLU_PRODUCTS_ROWS};

typedef struct layer {
    uint32_t K, N, width; /* width: all columns of the step, which y's product computes where it is the
                             library's: that wants its result without gaps */
    uint32_t ldx, ldy;
    size_t weight, bias_at; /* in the parameters */
    bool follow, relu, add;
    void *x;                       /* (rows, K) as the products read it; NULL: as it lies */
    float *bias;                   /* (width), zero behind N; NULL unless it follows */
    float *w, *forward, *backward; /* ROUNDED: (N, K), and its panels or NULL */
    void *packed[2];               /* others: w^T (K, width) and w (N, K) in the library's order */
    slu_matmul *y[SIZES], *dx[SIZES], *dw[HALVES][DEPTHS];
} layer;

/* Layers of one shape share what was made for it. */
typedef struct made {
    slu_matmul_spec spec;
    slu_matmul *m;
} made;

struct slu_products {
    slu_products_kind kind;
    uint32_t rows, threads, n;
    layer *layers; /* (n): one per step, N 0 where nothing is taken */
    void *dy;      /* (rows, widest N) as the products read it; NULL: as it lies */
    void *dy_half; /* BF16: the same for dW, the columns of one half behind those of the other */
    size_t size;   /* bytes of one number of x and dy */
    made *made;
    uint32_t n_made, cap_made;
    char name[120];
};

/* ---- what a machine can ---- */

static bool has_bf16_unit(void)
{
#ifdef __x86_64__
    unsigned a, b, c, d;
    if (!__builtin_cpu_supports("avx512f"))
        return false;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && d & 1u << 22)
        return true; /* AMX */
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1u << 5;
#else
    return false;
#endif
}

static bool has_avx512(void)
{
#ifdef __x86_64__
    return __builtin_cpu_supports("avx512f");
#else
    return false;
#endif
}

static slu_products_kind chosen; /* NONE: the best */

void slu_products_choose(slu_products_kind kind)
{
    chosen = kind;
}

slu_products_kind slu_products_best(bool bf16, const char **why)
{
    static const char *ignored;
    why = why ? why : &ignored;
    *why = "this CPU has neither AMX nor AVX-512 BF16";
    if (chosen != SLU_PRODUCTS_NONE && (chosen != SLU_PRODUCTS_FP32) == bf16)
        return chosen;
    if (bf16)
        return has_bf16_unit() && slu_onednn(why) ? SLU_PRODUCTS_BF16 : SLU_PRODUCTS_ROUNDED;
    return has_avx512() && slu_onednn(why) ? SLU_PRODUCTS_FP32 : SLU_PRODUCTS_NONE;
}

/* ---- planning ---- */

static uint32_t whole(uint32_t rows)
{
    return (rows + SLU_PRODUCTS_ROWS - 1) / SLU_PRODUCTS_ROWS * SLU_PRODUCTS_ROWS;
}

/* Leading columns of a dense step that neither gates nor logits have. */
static uint32_t columns_of(const slu_graph *g, const slu_step *s)
{
    uint32_t columns = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        const slu_node *node = &g->nodes[g->members[s->first + i]];
        if (node->kind != SLU_DENSE_RELU && node->kind != SLU_DENSE_HIDDEN)
            break;
        columns += node->width;
    }
    return columns;
}

static layer layer_of(const slu_graph *g, const slu_step *s)
{
    if (s->op != SLU_OP_DENSE)
        return (layer){.N = 0};
    const slu_node *first = &g->nodes[g->members[s->first]], *in = slu_graph_input_of(g, first, 0);
    const uint32_t columns = columns_of(g, s);
    if (columns < SLU_PRODUCTS_LEAST || in->width < SLU_PRODUCTS_LEAST)
        return (layer){.N = 0};
    return (layer){.K = in->width,
                   .N = columns,
                   .width = s->width,
                   .ldx = g->columns[in->buffer],
                   .ldy = g->columns[first->buffer],
                   .weight = first->weight,
                   .bias_at = first->bias,
                   .follow = s->followed >= columns,
                   .relu = first->relu,
                   .add = !in->overwritten};
}

static void *room(size_t bytes)
{
    void *p = slu_cache_lines_alloc(bytes);
    if (p)
        memset(p, 0, bytes);
    return p;
}

static bool same(const slu_matmul_spec *a, const slu_matmul_spec *b)
{
    return a->M == b->M && a->N == b->N && a->K == b->K && a->lda == b->lda && a->ldb == b->ldb &&
           a->ldc == b->ldc && a->bf16 == b->bf16 && a->transpose_a == b->transpose_a &&
           a->packed == b->packed && a->bias == b->bias && a->relu == b->relu && a->add == b->add;
}

static slu_matmul *make(slu_products *p, const slu_matmul_spec *spec, const slu_matmul *like)
{
    for (uint32_t i = 0; i < p->n_made; i++)
        if (same(&p->made[i].spec, spec))
            return p->made[i].m;
    if (p->n_made == p->cap_made) {
        uint32_t cap = p->cap_made ? 2 * p->cap_made : 64;
        made *more = realloc(p->made, cap * sizeof *more);
        if (!more)
            return NULL;
        p->made = more;
        p->cap_made = cap;
    }
    slu_matmul *m = slu_matmul_new(spec, like, p->threads);
    if (m)
        p->made[p->n_made++] = (made){*spec, m};
    return m;
}

/* Rows of dW of which piece |half| begins at the returned one. */
static uint32_t half_at(const layer *l, uint32_t half)
{
    uint32_t first = l->N < MOST_ROWS ? l->N : whole((l->N + 1) / 2);
    return half == 0 ? 0 : half == 1 ? first : l->N;
}

static uint32_t halves(const layer *l)
{
    return half_at(l, 1) < l->N ? 2 : 1;
}

static bool make_all(slu_products *p, layer *l)
{
    const bool bf16 = p->kind == SLU_PRODUCTS_BF16;
    slu_matmul_spec y = {.bf16 = bf16}, dx = y, dw = y;
    y.N = l->width;
    y.K = l->K;
    y.lda = bf16 ? l->K : l->ldx;
    y.ldc = l->ldy;
    y.packed = true;
    y.bias = l->follow;
    y.relu = l->follow && l->relu;
    dx.N = l->K;
    dx.K = l->N;
    dx.lda = bf16 ? l->N : l->ldy;
    dx.ldc = l->ldx;
    dx.packed = true;
    dx.add = l->add;
    for (int i = 0; i < SIZES; i++) {
        y.M = dx.M = sizes[i];
        if (!(l->y[i] = make(p, &y, l->y[0])) || !(l->dx[i] = make(p, &dx, l->dx[0])))
            return false;
    }
    dw.N = dw.ldc = l->K;
    dw.ldb = bf16 ? l->K : l->ldx;
    dw.transpose_a = true;
    dw.add = true;
    for (uint32_t h = 0; h < halves(l); h++)
        for (int i = 0; i < DEPTHS; i++) {
            dw.M = half_at(l, h + 1) - half_at(l, h);
            dw.lda = bf16 ? dw.M : l->ldy;
            dw.K = depths[i];
            if (depths[i] <= p->rows && !(l->dw[h][i] = make(p, &dw, NULL)))
                return false;
        }
    return true;
}

static int reserve_rounded(layer *l)
{
    const size_t forward = slu_gemm_packs() ? slu_weights_forward_floats(l->K, l->N) : 0;
    const size_t backward = slu_gemm_packs() ? slu_weights_backward_floats(l->K, l->N) : 0;
    l->w = room((size_t)l->N * l->K * sizeof *l->w);
    l->forward = forward ? room(forward * sizeof(float)) : NULL;
    l->backward = backward ? room(backward * sizeof(float)) : NULL;
    return l->w && !forward == !l->forward && !backward == !l->backward ? 0 : SLU_ENOMEM;
}

static int reserve(slu_products *p, layer *l)
{
    if ((p->size && !(l->x = room((size_t)p->rows * l->K * p->size))) ||
        (l->follow && !(l->bias = room(l->width * sizeof *l->bias))))
        return SLU_ENOMEM;
    if (p->kind == SLU_PRODUCTS_ROUNDED)
        return reserve_rounded(l);
    if (!make_all(p, l))
        return SLU_ENOTFOUND;
    l->packed[0] = room(slu_matmul_packed(l->y[0]));
    l->packed[1] = room(slu_matmul_packed(l->dx[0]));
    return l->packed[0] && l->packed[1] ? 0 : SLU_ENOMEM;
}

static void name_it(slu_products *p, const layer *largest)
{
    if (p->kind == SLU_PRODUCTS_ROUNDED)
        snprintf(p->name, sizeof p->name, "bf16 by rounding: %s", slu_gemm_backend());
    else
        snprintf(p->name, sizeof p->name, "%s: %s, %s", p->kind == SLU_PRODUCTS_BF16 ? "bf16" : "fp32",
                 slu_onednn(NULL), slu_matmul_kernel(largest->y[0]));
}

int slu_products_new(const slu_graph *g, uint32_t rows, slu_products_kind kind, const slu_parallel *parallel,
                     slu_products **out)
{
    *out = NULL;
    if (kind == SLU_PRODUCTS_NONE)
        return 0;
    slu_products *p = calloc(1, sizeof *p);
    if (!p)
        return SLU_ENOMEM;
    p->kind = kind;
    p->rows = whole(rows ? rows : 1);
    p->threads = slu_parallel_threads(parallel);
    p->n = g->n_steps;
    p->size = kind == SLU_PRODUCTS_BF16 ? sizeof(slu_bf16) : kind == SLU_PRODUCTS_ROUNDED ? sizeof(float) : 0;
    p->layers = calloc(p->n + 1, sizeof *p->layers);
    int rc = p->layers ? 0 : SLU_ENOMEM;
    const layer *largest = NULL;
    uint32_t widest = 0;
    for (uint32_t i = 0; !rc && i < p->n; i++) {
        layer *l = &p->layers[i];
        *l = layer_of(g, &g->steps[i]);
        if (!l->N)
            continue;
        rc = reserve(p, l);
        widest = l->N > widest ? l->N : widest;
        if (!largest || (uint64_t)l->N * l->K > (uint64_t)largest->N * largest->K)
            largest = l;
    }
    const size_t bytes = (size_t)p->rows * widest * p->size;
    if (!rc && bytes &&
        (!(p->dy = room(bytes)) || (kind == SLU_PRODUCTS_BF16 && !(p->dy_half = room(bytes)))))
        rc = SLU_ENOMEM;
    if (rc || !widest) {
        slu_products_free(p);
        return rc;
    }
    name_it(p, largest);
    *out = p;
    return 0;
}

void slu_products_free(slu_products *p)
{
    if (!p)
        return;
    for (uint32_t i = 0; p->layers && i < p->n; i++) {
        layer *l = &p->layers[i];
        free(l->x);
        free(l->bias);
        free(l->w);
        free(l->forward);
        free(l->backward);
        free(l->packed[0]);
        free(l->packed[1]);
    }
    for (uint32_t i = 0; i < p->n_made; i++)
        slu_matmul_free(p->made[i].m);
    free(p->made);
    free(p->layers);
    free(p->dy);
    free(p->dy_half);
    free(p);
}

bool slu_products_round(const slu_products *p)
{
    return p->size > 0;
}

const char *slu_products_name(const slu_products *p)
{
    return p->name;
}

uint32_t slu_products_columns(const slu_products *p, uint32_t i)
{
    return p->layers[i].N;
}

/* ---- weights ---- */

typedef struct packing {
    const slu_products *p;
    const float *params;
} packing;

static void take_bias(const packing *pack, const layer *l)
{
    if (l->bias)
        memcpy(l->bias, pack->params + l->bias_at, l->N * sizeof *l->bias);
}

static void pack_piece(void *ctx, uint32_t piece)
{
    const packing *pack = ctx;
    const layer *l = &pack->p->layers[piece / 2];
    const float *w = pack->params + l->weight;
    if (!l->N)
        return;
    if (piece % 2) {
        slu_matmul_pack(l->dx[0], l->packed[1], false, w, l->K);
    } else {
        slu_matmul_pack(l->y[0], l->packed[0], true, w, l->K);
        take_bias(pack, l);
    }
}

static void round_piece(void *ctx, uint32_t piece)
{
    const packing *pack = ctx;
    const layer *l = &pack->p->layers[piece];
    if (!l->N)
        return;
    slu_bf16_round(l->w, l->K, pack->params + l->weight, l->K, l->N, l->K);
    if (l->forward)
        slu_weights_pack_forward(l->forward, l->w, l->K, l->N);
    if (l->backward)
        slu_weights_pack_backward(l->backward, l->w, l->K, l->N);
    take_bias(pack, l);
}

void slu_products_pack(slu_products *p, const float *params, const slu_parallel *parallel)
{
    packing pack = {p, params};
    if (p->kind == SLU_PRODUCTS_ROUNDED)
        slu_parallel_run(parallel, round_piece, &pack, p->n);
    else
        slu_parallel_run(parallel, pack_piece, &pack, 2 * p->n);
}

/* ---- passes ---- */

/* A pass over one layer, for its pieces. */
typedef struct pass {
    const slu_products *p;
    const layer *l;
    uint32_t B;
    slu_block x, y, dx; /* y: also dy */
    float *dw;
} pass;

/* Rows at which piece |i| of |B| begins, and which of |sizes| it is. */
static uint32_t piece_at(uint32_t B, uint32_t i, int *size)
{
    uint32_t full = whole(B) / MOST_ROWS, at = full * MOST_ROWS, rest = whole(B) - at;
    *size = 0;
    if (i < full)
        return i * MOST_ROWS;
    *size = rest >= sizes[1] ? 1 : 2;
    if (i == full)
        return at;
    *size = 2;
    return at + sizes[1];
}

static uint32_t pieces_of(uint32_t B)
{
    uint32_t rest = whole(B) % MOST_ROWS;
    return whole(B) / MOST_ROWS + (rest == 0 ? 0 : rest == sizes[1] + sizes[2] ? 2 : 1);
}

/* Rows [at, at + rows) of |in| as products read them, zero behind row B; returns the first of them. |kept| is
 * where they are kept, NULL: they are read where they lie. */
static const void *operand(const pass *s, void *kept, slu_block in, uint32_t cols, uint32_t at, uint32_t rows)
{
    const uint32_t real = s->B - at < rows ? s->B - at : rows;
    float *from = in.p + (size_t)at * in.ld;
    if (!kept) {
        for (uint32_t i = real; i < rows; i++)
            memset(from + (size_t)i * in.ld, 0, cols * sizeof *from);
        return from;
    }
    char *to = (char *)kept + (size_t)at * cols * s->p->size;
    if (s->p->kind == SLU_PRODUCTS_BF16)
        slu_bf16_narrow((slu_bf16 *)to, cols, from, in.ld, real, cols);
    else
        slu_bf16_round((float *)to, cols, from, in.ld, real, cols);
    memset(to + (size_t)real * cols * s->p->size, 0, (size_t)(rows - real) * cols * s->p->size);
    return to;
}

static void forward_piece(void *ctx, uint32_t piece)
{
    const pass *s = ctx;
    int size;
    uint32_t at = piece_at(s->B, piece, &size);
    const void *x = operand(s, s->l->x, s->x, s->l->K, at, sizes[size]);
    if (s->p->kind != SLU_PRODUCTS_ROUNDED)
        slu_matmul_run(s->l->y[size], x, s->l->packed[0], s->l->bias, s->y.p + (size_t)at * s->y.ld);
}

/* A transposed operand of the library's fast kernels has no gaps, so each half of the columns gets a matrix
 * of its own. */
static void halve(const pass *s, const slu_bf16 *dy, uint32_t at, uint32_t rows)
{
    slu_bf16 *half = s->p->dy_half;
    const uint32_t cols = half_at(s->l, 1), rest = s->l->N - cols;
    slu_bf16 *first = half + (size_t)at * cols,
             *second = half + (size_t)s->p->rows * cols + (size_t)at * rest;
    for (uint32_t i = 0; i < rows; i++, dy += s->l->N, first += cols, second += rest) {
        memcpy(first, dy, cols * sizeof *dy);
        memcpy(second, dy + cols, rest * sizeof *dy);
    }
}

static void backward_piece(void *ctx, uint32_t piece)
{
    const pass *s = ctx;
    int size;
    uint32_t at = piece_at(s->B, piece, &size);
    const void *dy = operand(s, s->p->dy, s->y, s->l->N, at, sizes[size]);
    if (s->p->dy_half && halves(s->l) > 1)
        halve(s, dy, at, sizes[size]);
    if (s->p->kind != SLU_PRODUCTS_ROUNDED)
        slu_matmul_run(s->l->dx[size], dy, s->l->packed[1], NULL, s->dx.p + (size_t)at * s->dx.ld);
}

static void gradient_piece(void *ctx, uint32_t half)
{
    const pass *s = ctx;
    const layer *l = s->l;
    const uint32_t first = half_at(l, half), cols = half_at(l, half + 1) - first;
    const slu_bf16 *narrow_x = l->x, *narrow_dy = halves(l) > 1 ? s->p->dy_half : s->p->dy;
    uint32_t at = 0;
    for (int i = 0; i < DEPTHS; i++)
        for (; l->dw[half][i] && whole(s->B) - at >= depths[i]; at += depths[i]) {
            const void *dy = s->y.p + (size_t)at * s->y.ld + first, *x = s->x.p + (size_t)at * s->x.ld;
            if (narrow_x) {
                dy = narrow_dy + (size_t)s->p->rows * first + (size_t)at * cols;
                x = narrow_x + (size_t)at * l->K;
            }
            slu_matmul_run(l->dw[half][i], dy, x, NULL, s->dw + (size_t)first * l->K);
        }
}

static slu_weights rounded_weights(const layer *l, const slu_parallel *parallel)
{
    return (slu_weights){l->w, l->K, l->N, l->forward, l->backward, parallel};
}

void slu_products_forward(slu_products *p, uint32_t i, uint32_t B, slu_block x, slu_block y,
                          const slu_parallel *parallel)
{
    const layer *l = &p->layers[i];
    pass s = {.p = p, .l = l, .B = B, .x = x, .y = y};
    slu_parallel_run(parallel, forward_piece, &s, pieces_of(B));
    if (p->kind != SLU_PRODUCTS_ROUNDED)
        return;
    slu_weights w = rounded_weights(l, parallel);
    slu_follow f = {.cols = 0};
    if (l->follow)
        f = (slu_follow){.finish = {l->bias, l->relu}, .cols = l->N};
    slu_weights_forward(&w, 0, l->K, B, l->x, l->K, false, y.p, y.ld, f);
}

void slu_products_backward(slu_products *p, uint32_t i, uint32_t B, slu_block x, slu_block dy, slu_block dx,
                           float *dw, const slu_parallel *parallel)
{
    const layer *l = &p->layers[i];
    pass s = {.p = p, .l = l, .B = B, .x = x, .y = dy, .dx = dx, .dw = dw};
    slu_parallel_run(parallel, backward_piece, &s, pieces_of(B));
    if (p->kind != SLU_PRODUCTS_ROUNDED) {
        slu_parallel_run(parallel, gradient_piece, &s, halves(l));
        return;
    }
    slu_weights w = rounded_weights(l, parallel);
    slu_weights_gradient(&w, 0, l->K, B, p->dy, l->N, l->x, l->K, dw);
    slu_weights_backward(&w, 0, l->K, B, p->dy, l->N, l->add, dx.p, dx.ld);
}
