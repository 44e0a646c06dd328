/* Score requests: what is packed comes out again as the features of each candidate. */
#include "feature/value.h"
#include "sim/question.h"
#include "sluice/v1/score.pb-c.h"
#include "tests/suite.h"
#include <string.h>

static slu_options *options;
static slu_schema *schema;
static slu_arena *arena;

static void load(void)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_options_load("examples/ads.yaml", NULL, 0, &options, &err), "%s", err.message);
    ck_assert_msg(!slu_schema_new(options, &schema, &err), "%s", err.message);
    arena = slu_arena_new(0, 0);
}

static uint32_t field(const char *name)
{
    int f = slu_schema_field_find(schema, name, strlen(name));
    ck_assert_int_ge(f, 0);
    return (uint32_t)f;
}

static slu_values *candidate(void)
{
    return slu_arena_zalloc(arena, slu_schema_fields(schema) * sizeof(slu_values));
}

static void set(slu_values *fields, const char *name, slu_value v)
{
    slu_value *kept = slu_arena_alloc(arena, sizeof v);
    *kept = v;
    fields[field(name)] = (slu_values){kept, 1};
}

static Sluice__V1__ScoreRequest *pack(const slu_values *const *fields, uint32_t n)
{
    slu_error err = SLU_ERROR_INIT;
    slu_buf bytes = SLU_BUF_INIT;
    ck_assert_msg(!slu_question_pack(schema, fields, n, arena, &bytes, &err), "%s", err.message);
    Sluice__V1__ScoreRequest *r = sluice__v1__score_request__unpack(NULL, bytes.len, bytes.data);
    ck_assert_ptr_nonnull(r);
    slu_buf_free(&bytes);
    return r;
}

static const Sluice__V1__Column *column(const Sluice__V1__ScoreRequest *r, const char *name)
{
    for (size_t i = 0; i < r->n_columns; i++)
        if (!strcmp(r->columns[i]->name, name))
            return r->columns[i];
    ck_abort_msg("no column %s", name);
}

START_TEST(test_shared_once_items_in_columns)
{
    load();
    slu_values *a = candidate(), *b = candidate();
    set(a, "user_id", slu_text_value("u1", 2));
    set(b, "user_id", slu_text_value("other", 5)); /* not the first: not asked about */
    set(a, "item_id", slu_text_value("i1xx", 2));  /* not NUL-terminated at its end */
    set(b, "item_id", slu_text_value("i2", 2));
    set(a, "position", slu_integer_value(1));
    set(b, "position", slu_integer_value(7));
    set(a, "price", slu_number_value(9.5));
    Sluice__V1__ScoreRequest *r = pack((const slu_values *[]){a, b}, 2);
    ck_assert_uint_eq(r->candidates, 2);
    ck_assert_uint_eq(r->n_shared, 1);
    ck_assert_str_eq(r->shared[0]->text[0], "u1");
    ck_assert_str_eq(column(r, "item_id")->text[0], "i1");
    ck_assert_str_eq(column(r, "item_id")->text[1], "i2");
    ck_assert_uint_eq(column(r, "item_id")->n_lengths, 0);
    ck_assert_int_eq(column(r, "position")->integers[1], 7);
    /* The second price is missing, which only lengths can say. */
    const Sluice__V1__Column *price = column(r, "price");
    ck_assert(price->n_numbers == 1 && price->n_lengths == 2 && price->lengths[0] == 1 &&
              price->lengths[1] == 0);
    sluice__v1__score_request__free_unpacked(r, NULL);
}
END_TEST

START_TEST(test_mixed_kinds_become_text)
{
    load();
    slu_values *a = candidate(), *b = candidate();
    set(a, "item_id", slu_integer_value(12));
    set(b, "item_id", slu_text_value("x", 1));
    Sluice__V1__ScoreRequest *r = pack((const slu_values *[]){a, b}, 2);
    const Sluice__V1__Column *c = column(r, "item_id");
    ck_assert_uint_eq(c->n_integers, 0);
    ck_assert_str_eq(c->text[0], "12");
    ck_assert_str_eq(c->text[1], "x");
    sluice__v1__score_request__free_unpacked(r, NULL);
}
END_TEST

START_TEST(test_keep_is_a_deep_copy)
{
    load();
    char text[] = "before";
    slu_values *a = candidate();
    set(a, "item_id", slu_text_value(text, 6));
    set(a, "position", slu_integer_value(3));
    slu_values *kept = slu_question_keep(schema, a, arena);
    memcpy(text, "after!", 6);
    const slu_value *v = kept[field("item_id")].v;
    ck_assert_mem_eq(v->v.text.p, "before", 6);
    ck_assert_int_eq(kept[field("position")].v->v.integer, 3);
    ck_assert_uint_eq(kept[field("price")].n, 0);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_shared_once_items_in_columns, test_mixed_kinds_become_text,
                                  test_keep_is_a_deep_copy, NULL};
    return run_suite("question", tests);
}
