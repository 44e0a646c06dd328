#include "model/onednn.h"
#include <pthread.h>
#include <stdio.h>

#ifdef SLU_DNNL
#include "base/cache_line.h"
#include "base/log.h"
#include "model/blocks.h"
#include <dlfcn.h>
#include <dnnl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- the library ---- */

#define CALLS(X)                                                                                             \
    X(dnnl_version)                                                                                          \
    X(dnnl_engine_create)                                                                                    \
    X(dnnl_stream_create)                                                                                    \
    X(dnnl_stream_destroy)                                                                                   \
    X(dnnl_stream_wait)                                                                                      \
    X(dnnl_memory_desc_init_by_strides)                                                                      \
    X(dnnl_memory_desc_init_by_tag)                                                                          \
    X(dnnl_memory_desc_get_size)                                                                             \
    X(dnnl_matmul_desc_init)                                                                                 \
    X(dnnl_post_ops_create)                                                                                  \
    X(dnnl_post_ops_destroy)                                                                                 \
    X(dnnl_post_ops_append_sum)                                                                              \
    X(dnnl_post_ops_append_eltwise)                                                                          \
    X(dnnl_primitive_attr_create)                                                                            \
    X(dnnl_primitive_attr_destroy)                                                                           \
    X(dnnl_primitive_attr_set_post_ops)                                                                      \
    X(dnnl_primitive_attr_set_scratchpad_mode)                                                               \
    X(dnnl_primitive_desc_create)                                                                            \
    X(dnnl_primitive_desc_destroy)                                                                           \
    X(dnnl_primitive_desc_query)                                                                             \
    X(dnnl_primitive_desc_query_md)                                                                          \
    X(dnnl_primitive_create)                                                                                 \
    X(dnnl_primitive_destroy)                                                                                \
    X(dnnl_primitive_execute)                                                                                \
    X(dnnl_memory_create)                                                                                    \
    X(dnnl_memory_destroy)                                                                                   \
    X(dnnl_memory_set_data_handle)

#define POINTER(name) __typeof__(name) *name;
static struct {
    CALLS(POINTER)
    void (*omp_set_num_threads)(int); /* NULL: built without OpenMP */
    dnnl_engine_t engine;             /* for the process's life */
    char name[40], why[200];          /* one of them is empty */
} lib;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *symbol(void *library, const char *name)
{
    void *p = dlsym(library, name);
    if (!p && !*lib.why)
        snprintf(lib.why, sizeof lib.why, "libdnnl.so.2 has no %s", name);
    return p;
}

/* A team of one for the products of this thread. A variable of the environment would be another way, but not
 * one that is safe beside other threads. */
static void stay_alone(void)
{
    static _Thread_local bool alone;
    if (!alone && lib.omp_set_num_threads)
        lib.omp_set_num_threads(1);
    alone = true;
}

/* The library writes its kernels while it runs. Where that is forbidden it would only say so in the middle of
 * a product. */
static bool may_run_what_it_writes(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return false;
    bool may = mprotect(p, page, PROT_READ | PROT_EXEC) == 0;
    munmap(p, page);
    return may;
}

static void load(void)
{
    if (!may_run_what_it_writes()) {
        snprintf(lib.why, sizeof lib.why,
                 "this process may not make memory executable (MemoryDenyWriteExecute= of its unit), which "
                 "oneDNN has to");
        return;
    }
    void *library = dlopen("libdnnl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(lib.why, sizeof lib.why, "%s", dlerror());
        return;
    }
#define FIND(name) *(void **)&lib.name = symbol(library, #name);
    CALLS(FIND)
    *(void **)&lib.omp_set_num_threads = dlsym(library, "omp_set_num_threads");
    if (*lib.why)
        return;
    stay_alone();
    const dnnl_version_t *v = lib.dnnl_version();
    if (v->major != DNNL_VERSION_MAJOR)
        snprintf(lib.why, sizeof lib.why, "libdnnl.so.2 is of version %d", v->major);
    else if (lib.dnnl_engine_create(&lib.engine, dnnl_cpu, 0))
        snprintf(lib.why, sizeof lib.why, "libdnnl.so.2 makes no engine");
    else
        snprintf(lib.name, sizeof lib.name, "onednn %d.%d.%d", v->major, v->minor, v->patch);
}

const char *slu_onednn(const char **why)
{
    pthread_once(&once, load);
    if (why)
        *why = lib.why;
    return *lib.name ? lib.name : NULL;
}

/* ---- one product ---- */

/* What one thread needs to run it. */
typedef struct seat {
    atomic_bool taken;
    dnnl_stream_t stream;
    dnnl_memory_t a, b, bias, c, scratch;
    void *room;
} seat;

struct slu_matmul {
    slu_matmul_spec spec;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t b;
    slu_blocks blocks; /* of a packed B */
    uint32_t n_seats;
    seat *seats;
};

static dnnl_status_t describe(dnnl_memory_desc_t *md, int64_t rows, int64_t cols, bool bf16, int64_t row,
                              int64_t col)
{
    return lib.dnnl_memory_desc_init_by_strides(md, 2, (dnnl_dims_t){rows, cols}, bf16 ? dnnl_bf16 : dnnl_f32,
                                                (dnnl_dims_t){row, col});
}

static dnnl_status_t describe_b(dnnl_memory_desc_t *md, const slu_matmul_spec *s, const slu_matmul *like)
{
    if (!s->packed)
        return describe(md, s->K, s->N, s->bf16, s->ldb, 1);
    if (like) {
        *md = like->b;
        return dnnl_success;
    }
    return lib.dnnl_memory_desc_init_by_tag(md, 2, (dnnl_dims_t){s->K, s->N}, s->bf16 ? dnnl_bf16 : dnnl_f32,
                                            dnnl_format_tag_any);
}

static dnnl_status_t add_post_ops(dnnl_primitive_attr_t attr, const slu_matmul_spec *s)
{
    dnnl_post_ops_t ops;
    dnnl_status_t rc = lib.dnnl_post_ops_create(&ops);
    if (rc)
        return rc;
    if (s->add)
        rc = lib.dnnl_post_ops_append_sum(ops, 1);
    if (!rc && s->relu)
        rc = lib.dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_relu, 0, 0);
    if (!rc)
        rc = lib.dnnl_primitive_attr_set_post_ops(attr, ops);
    lib.dnnl_post_ops_destroy(ops);
    return rc;
}

static dnnl_status_t plan(slu_matmul *m, const slu_matmul *like)
{
    const slu_matmul_spec *s = &m->spec;
    dnnl_memory_desc_t a, b, bias, c;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attr;
    if (s->transpose_a ? describe(&a, s->M, s->K, s->bf16, 1, s->lda)
                       : describe(&a, s->M, s->K, s->bf16, s->lda, 1))
        return dnnl_invalid_arguments;
    if (describe_b(&b, s, like) || describe(&bias, 1, s->N, false, s->N, 1) ||
        describe(&c, s->M, s->N, false, s->ldc, 1) ||
        lib.dnnl_matmul_desc_init(&desc, &a, &b, s->bias ? &bias : NULL, &c))
        return dnnl_invalid_arguments;
    dnnl_status_t rc = lib.dnnl_primitive_attr_create(&attr);
    if (rc)
        return rc;
    /* The library's own scratch belongs to the thread that made the primitive, so each seat brings some. */
    rc = lib.dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (!rc)
        rc = add_post_ops(attr, s);
    if (!rc)
        rc = lib.dnnl_primitive_desc_create(&m->pd, &desc, attr, lib.engine, NULL);
    lib.dnnl_primitive_attr_destroy(attr);
    if (rc)
        return rc;
    if (strstr(slu_matmul_kernel(m), "ref"))
        return dnnl_unimplemented;
    m->b = *lib.dnnl_primitive_desc_query_md(m->pd, dnnl_query_weights_md, 0);
    return lib.dnnl_primitive_create(&m->primitive, m->pd);
}

static dnnl_status_t take_seat(slu_matmul *m, seat *t)
{
    const dnnl_memory_desc_t *scratch = lib.dnnl_primitive_desc_query_md(m->pd, dnnl_query_scratchpad_md, 0);
    t->room = slu_cache_lines_alloc(lib.dnnl_memory_desc_get_size(scratch));
    if (!t->room)
        return dnnl_out_of_memory;
    const dnnl_memory_desc_t *md[] = {lib.dnnl_primitive_desc_query_md(m->pd, dnnl_query_src_md, 0), &m->b,
                                      lib.dnnl_primitive_desc_query_md(m->pd, dnnl_query_dst_md, 0),
                                      lib.dnnl_primitive_desc_query_md(m->pd, dnnl_query_weights_md, 1)};
    dnnl_status_t rc = lib.dnnl_stream_create(&t->stream, lib.engine, dnnl_stream_default_flags);
    if (!rc)
        rc = lib.dnnl_memory_create(&t->a, md[0], lib.engine, DNNL_MEMORY_NONE);
    if (!rc)
        rc = lib.dnnl_memory_create(&t->b, md[1], lib.engine, DNNL_MEMORY_NONE);
    if (!rc)
        rc = lib.dnnl_memory_create(&t->c, md[2], lib.engine, DNNL_MEMORY_NONE);
    if (!rc && m->spec.bias)
        rc = lib.dnnl_memory_create(&t->bias, md[3], lib.engine, DNNL_MEMORY_NONE);
    if (!rc)
        rc = lib.dnnl_memory_create(&t->scratch, scratch, lib.engine, t->room);
    return rc;
}

/* ---- the library's order of B ---- */

static bool find_order(slu_matmul *m)
{
    const dnnl_memory_desc_t *b = &m->b;
    if (!m->spec.packed)
        return true;
    const dnnl_blocking_desc_t *in = &b->format_desc.blocking;
    if (b->format_kind != dnnl_blocked || b->extra.flags || b->offset0 || in->inner_nblks > SLU_BLOCKS_MAX)
        return false;
    slu_blocking how = {.stride = {(size_t)in->strides[0], (size_t)in->strides[1]},
                        .n = (uint32_t)in->inner_nblks};
    for (uint32_t i = 0; i < how.n; i++) {
        how.of[i] = (uint32_t)in->inner_idxs[i];
        how.size[i] = (uint32_t)in->inner_blks[i];
    }
    return !slu_blocks_init(&m->blocks, m->spec.K, m->spec.N, &how);
}

size_t slu_matmul_packed(const slu_matmul *m)
{
    return lib.dnnl_memory_desc_get_size(&m->b);
}

void slu_matmul_pack(const slu_matmul *m, void *out, bool transpose_b, const float *B, uint32_t ldb)
{
    if (m->spec.bf16)
        slu_blocks_pack_bf16(&m->blocks, out, transpose_b, B, ldb);
    else
        slu_blocks_pack(&m->blocks, out, transpose_b, B, ldb);
}

/* ---- making and running ---- */

slu_matmul *slu_matmul_new(const slu_matmul_spec *spec, const slu_matmul *like, uint32_t threads)
{
    if (!slu_onednn(NULL))
        return NULL;
    stay_alone();
    slu_matmul *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->spec = *spec;
    m->n_seats = threads ? threads : 1;
    m->seats = calloc(m->n_seats, sizeof *m->seats);
    bool ok = m->seats && !plan(m, like) && find_order(m);
    for (uint32_t i = 0; ok && i < m->n_seats; i++)
        ok = !take_seat(m, &m->seats[i]);
    if (ok)
        return m;
    slu_matmul_free(m);
    return NULL;
}

void slu_matmul_free(slu_matmul *m)
{
    if (!m)
        return;
    for (uint32_t i = 0; m->seats && i < m->n_seats; i++) {
        seat *t = &m->seats[i];
        dnnl_memory_t all[] = {t->a, t->b, t->bias, t->c, t->scratch};
        for (int k = 0; k < 5; k++)
            if (all[k])
                lib.dnnl_memory_destroy(all[k]);
        if (t->stream)
            lib.dnnl_stream_destroy(t->stream);
        free(t->room);
    }
    if (m->primitive)
        lib.dnnl_primitive_destroy(m->primitive);
    if (m->pd)
        lib.dnnl_primitive_desc_destroy(m->pd);
    free(m->seats);
    slu_blocks_free(&m->blocks);
    free(m);
}

const char *slu_matmul_kernel(const slu_matmul *m)
{
    const char *name = "?";
    lib.dnnl_primitive_desc_query(m->pd, dnnl_query_impl_info_str, 0, &name);
    return name;
}

static seat *free_seat(slu_matmul *m)
{
    for (uint32_t i = 0;; i = (i + 1) % m->n_seats)
        if (!atomic_exchange_explicit(&m->seats[i].taken, true, memory_order_acquire))
            return &m->seats[i];
}

void slu_matmul_run(slu_matmul *m, const void *A, const void *B, const float *bias, float *C)
{
    stay_alone();
    seat *t = free_seat(m);
    dnnl_status_t rc = lib.dnnl_memory_set_data_handle(t->a, (void *)A);
    if (!rc)
        rc = lib.dnnl_memory_set_data_handle(t->b, (void *)B);
    if (!rc)
        rc = lib.dnnl_memory_set_data_handle(t->c, C);
    if (!rc && t->bias)
        rc = lib.dnnl_memory_set_data_handle(t->bias, (void *)bias);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, t->a},
                              {DNNL_ARG_WEIGHTS, t->b},
                              {DNNL_ARG_DST, t->c},
                              {DNNL_ARG_SCRATCHPAD, t->scratch},
                              {DNNL_ARG_BIAS, t->bias}};
    if (!rc)
        rc = lib.dnnl_primitive_execute(m->primitive, t->stream, t->bias ? 5 : 4, args);
    if (!rc)
        rc = lib.dnnl_stream_wait(t->stream);
    atomic_store_explicit(&t->taken, false, memory_order_release);
    if (rc) {
        SLU_ERROR("model", "oneDNN refused a product; a step cannot go on with half of its sums",
                  SLU_STR("kernel", slu_matmul_kernel(m)), SLU_I64("status", rc));
        abort();
    }
}

#else /* no header when this was built */

const char *slu_onednn(const char **why)
{
    if (why)
        *why = "this program was built without oneDNN's header (libdnnl-dev)";
    return NULL;
}

/* No slu_matmul exists. */
slu_matmul *slu_matmul_new(const slu_matmul_spec *spec, const slu_matmul *like, uint32_t threads)
{
    (void)spec, (void)like, (void)threads;
    return NULL;
}

void slu_matmul_free(slu_matmul *m)
{
    (void)m;
}

const char *slu_matmul_kernel(const slu_matmul *m)
{
    (void)m;
    return "none";
}

size_t slu_matmul_packed(const slu_matmul *m)
{
    (void)m;
    return 0;
}

void slu_matmul_pack(const slu_matmul *m, void *out, bool transpose_b, const float *B, uint32_t ldb)
{
    (void)m, (void)out, (void)transpose_b, (void)B, (void)ldb;
}

void slu_matmul_run(slu_matmul *m, const void *A, const void *B, const float *bias, float *C)
{
    (void)m, (void)A, (void)B, (void)bias, (void)C;
}
#endif
