#include "base/metrics.h"
#include "tests/event_fixture.h"

static int decode_json(const char *text)
{
    return decode(SLU_ENCODING_JSON, SLU_UNKNOWN_REJECT, text, strlen(text));
}

static void json_dead(const char *text, slu_dead_reason reason, const char *part)
{
    decode_json(text);
    expect_dead(reason, part);
}

START_TEST(test_json_impression)
{
    ck_assert_int_eq(
        decode_json("{\"impression\": {\"id\": \"i1\", \"time_us\": 1700000000000000, \"model_version\": 7, "
                    "\"served\": [{}],"
                    " \"features\": {\"item\": \"a\", \"tags\": [\"x\", 5, true, null, 2.5], \"price\": 9.5, "
                    "\"user\": "
                    "42, \"device\": null, \"slot\": false, \"recent\": [null]}}, \"trace\": \"t\"}"),
        0);
    ck_assert_int_eq(event.kind, SLU_EVENT_IMPRESSION);
    expect_span(event.id, "i1");
    expect_span(event.impression_id, "i1");
    ck_assert_int_eq(event.time_us, 1700000000000000);
    ck_assert_uint_eq(event.model_version, 7);
    expect_value("item", 0, "a");
    ck_assert_uint_eq(field("tags")->n, 4);
    expect_value("tags", 1, "5");
    expect_value("tags", 2, "true");
    expect_value("tags", 3, "2.5");
    expect_value("price", 0, "9.5");
    expect_value("user", 0, "42");
    expect_value("slot", 0, "false");
    ck_assert_uint_eq(field("device")->n, 0);
    ck_assert_uint_eq(field("recent")->n, 0);
    ck_assert_uint_eq(field("age")->n, 0);
}
END_TEST

START_TEST(test_json_step)
{
    ck_assert_int_eq(
        decode_json("{\"step\": {\"id\": \"e7\", \"step\": \"conversion\", \"impression_id\": 12, "
                    "\"time_us\": 1700000000500000}}"),
        0);
    ck_assert_int_eq(event.kind, SLU_EVENT_STEP);
    expect_span(event.id, "e7");
    expect_span(event.impression_id, "12");
    ck_assert_uint_eq(event.step, 1);
    ck_assert_int_eq(event.time_us, 1700000000500000);
    ck_assert_int_eq(
        decode_json("{\"step\": {\"step\": \"click\", \"impression_id\": \"i\", \"time_us\": 1}}"), 0);
    ck_assert_uint_eq(event.id.n, 0);
}
END_TEST

#define IMPRESSION(features) "{\"impression\":{\"id\":\"i\",\"time_us\":5,\"features\":" features "}}"

START_TEST(test_json_bad)
{
    static const struct {
        const char *text;
        slu_dead_reason reason;
        const char *part;
    } cases[] = {
        {"", SLU_DEAD_MALFORMED, "empty"},
        {"{", SLU_DEAD_MALFORMED, "not JSON"},
        {"nonsense", SLU_DEAD_MALFORMED, "not JSON"},
        {"{} {}", SLU_DEAD_MALFORMED, "not JSON"},
        {"[]", SLU_DEAD_MALFORMED, "an array"},
        {"{}", SLU_DEAD_MALFORMED, "neither"},
        {"{\"impression\":{},\"step\":{}}", SLU_DEAD_MALFORMED, "both"},
        {"{\"impression\":5}", SLU_DEAD_MALFORMED, "impression is a number"},
        {"{\"step\":null}", SLU_DEAD_MALFORMED, "step is null"},
        {"{\"impression\":{\"time_us\":5}}", SLU_DEAD_MALFORMED, "impression.id is missing"},
        {"{\"impression\":{\"id\":\"\",\"time_us\":5}}", SLU_DEAD_MALFORMED, "impression.id is missing"},
        {"{\"impression\":{\"id\":null,\"time_us\":5}}", SLU_DEAD_MALFORMED, "impression.id is missing"},
        {"{\"impression\":{\"id\":[],\"time_us\":5}}", SLU_DEAD_MALFORMED, "impression.id is an array"},
        {"{\"impression\":{\"id\":\"i\"}}", SLU_DEAD_MALFORMED, "impression.time_us is missing"},
        {"{\"impression\":{\"id\":\"i\",\"time_us\":0}}", SLU_DEAD_MALFORMED,
         "impression.time_us is missing"},
        {"{\"impression\":{\"id\":\"i\",\"time_us\":-5}}", SLU_DEAD_MALFORMED, "impression.time_us is -5"},
        {"{\"impression\":{\"id\":\"i\",\"time_us\":9000000000000000000}}", SLU_DEAD_MALFORMED, "year 9999"},
        {"{\"impression\":{\"id\":\"i\",\"time_us\":99999999999999999999}}", SLU_DEAD_MALFORMED, "not JSON"},
        {"{\"impression\":{\"id\":\"i\",\"time_us\":1.5}}", SLU_DEAD_MALFORMED, "time_us is a fraction"},
        {"{\"impression\":{\"id\":\"i\",\"time_us\":\"5\"}}", SLU_DEAD_MALFORMED, "time_us is a string"},
        {"{\"impression\":{\"id\":\"i\",\"id\":\"j\",\"time_us\":5}}", SLU_DEAD_MALFORMED,
         "not JSON: duplicate"},
        {"{\"impression\":{\"id\":\"a\\u0000b\",\"time_us\":5}}", SLU_DEAD_MALFORMED, "not JSON"},
        {"{\"impression\":{\"id\":\"\xff\",\"time_us\":5}}", SLU_DEAD_MALFORMED, "not JSON"},
        {"{\"impression\":{\"id\":\"i\",\"time_us\":5,\"model_version\":-1}}", SLU_DEAD_MALFORMED,
         "model_version"},
        {IMPRESSION("[]"), SLU_DEAD_MALFORMED, "impression.features is an array"},
        {IMPRESSION("{\"colour\":1}"), SLU_DEAD_UNKNOWN_FEATURE,
         "feature 'colour' is not in the config; add it or set training.unknown_features: ignore"},
        {IMPRESSION("{\"\":1}"), SLU_DEAD_MALFORMED, "a feature has no name"},
        {IMPRESSION("{\"item\":{}}"), SLU_DEAD_MALFORMED, "feature 'item' holds an object"},
        {IMPRESSION("{\"item\":[[1]]}"), SLU_DEAD_MALFORMED, "feature 'item' holds an array"},
        {IMPRESSION("{\"item\":1,\"item\":2}"), SLU_DEAD_MALFORMED, "not JSON: duplicate"},
        {IMPRESSION("{\"price\":1e400}"), SLU_DEAD_MALFORMED, "not JSON"},
        {IMPRESSION("{\"price\":NaN}"), SLU_DEAD_MALFORMED, "not JSON"},
        {"{\"step\":{\"step\":\"click\",\"time_us\":5}}", SLU_DEAD_MALFORMED,
         "step.impression_id is missing"},
        {"{\"step\":{\"impression_id\":\"i\",\"time_us\":5}}", SLU_DEAD_MALFORMED, "step.step is missing"},
        {"{\"step\":{\"step\":\"click\",\"impression_id\":\"i\"}}", SLU_DEAD_MALFORMED,
         "step.time_us is missing"},
        {"{\"step\":{\"step\":\"cart\",\"impression_id\":\"i\",\"time_us\":5}}", SLU_DEAD_UNKNOWN_STEP,
         "step 'cart' is not in the funnel; known: click, conversion"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        json_dead(cases[i].text, cases[i].reason, cases[i].part);
}
END_TEST

START_TEST(test_json_deep)
{
    char *deep = malloc(400001);
    memset(deep, '[', 400000);
    deep[400000] = 0;
    json_dead(deep, SLU_DEAD_MALFORMED, "not JSON: maximum parsing depth");
    free(deep);
}
END_TEST

START_TEST(test_json_truncated)
{
    const char *text = IMPRESSION("{\"item\":\"caf\xc3\xa9\",\"tags\":[1,2.5,true,null]}");
    ck_assert_int_eq(decode_json(text), 0);
    for (size_t n = 0; n < strlen(text); n++) {
        ck_assert_int_eq(decode(SLU_ENCODING_JSON, SLU_UNKNOWN_REJECT, text, n), SLU_EINVAL);
        ck_assert_int_eq(why, SLU_DEAD_MALFORMED);
    }
}
END_TEST

START_TEST(test_unknown_ignored)
{
    const char *text = IMPRESSION("{\"colour\":{\"any\":[1]},\"item\":\"a\",\"size\":1}");
    slu_metric *ignored = slu_counter("sluice_unknown_features_ignored_total", NULL, "");
    double before = slu_metric_value(ignored);
    ck_assert_int_eq(decode(SLU_ENCODING_JSON, SLU_UNKNOWN_IGNORE, text, strlen(text)), 0);
    expect_value("item", 0, "a");
    ck_assert_double_eq(slu_metric_value(ignored) - before, 2);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("event_json");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_json_impression);
    tcase_add_test(t, test_json_step);
    tcase_add_test(t, test_json_bad);
    tcase_add_test(t, test_json_deep);
    tcase_add_test(t, test_json_truncated);
    tcase_add_test(t, test_unknown_ignored);
    return run_suite("event_json", t);
}
