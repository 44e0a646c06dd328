#include "model/graph.h"
#include "tests/numeric.h"
#include <string.h>

static void finish_fails(slu_graph *g, const char *message)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_graph_finish(g, &err), SLU_EINVAL);
    ck_assert_msg(strstr(err.message, message) != NULL, "'%s' lacks '%s'", err.message, message);
    slu_graph_free(g);
}

/* The first mistake is the one reported, and what follows it does no harm. */
START_TEST(test_mistakes)
{
    slu_graph *g = slu_graph_new(4, 1);
    slu_node_id x = slu_graph_input(g);
    slu_graph_logit(g, slu_graph_dense(g, x, 3, SLU_DENSE_RELU, "a"), "a");
    finish_fails(g, "two network nodes are named 'a'");

    g = slu_graph_new(4, 2);
    slu_graph_logit(g, slu_graph_input(g), "only");
    finish_fails(g, "1 logits for 2 tasks");

    g = slu_graph_new(4, 1);
    x = slu_graph_input(g);
    slu_node_id experts[2] = {slu_graph_dense(g, x, 3, SLU_DENSE_RELU, "e0"),
                              slu_graph_dense(g, x, 2, SLU_DENSE_RELU, "e1")};
    slu_node_id mixed = slu_graph_mixture(g, slu_graph_gate(g, x, 2, "g"), experts, 2, "m");
    slu_graph_norm_relu(g, mixed, SLU_NET_NORM_LAYER, "n"); /* no-ops from here */
    slu_graph_softmax(g, mixed, "s");
    slu_graph_mixture(g, mixed, experts, 2, "m2");
    slu_graph_logit(g, slu_graph_mlp(g, mixed, (uint32_t[]){2}, 1, SLU_NET_NORM_BATCH, "t"), "l");
    finish_fails(g, "experts of different widths");

    g = slu_graph_new(4, 1);
    x = slu_graph_input(g);
    experts[0] = slu_graph_dense(g, x, 3, SLU_DENSE_RELU, "e0");
    slu_graph_mixture(g, slu_graph_gate(g, x, 2, "g"), experts, 1, "m");
    finish_fails(g, "a gate of width 2 for 1 experts");

    g = slu_graph_new(4, 1);
    slu_graph_logit(g, slu_graph_input(g), "%s",
                    "a name that is much longer than any name of a node may ever be");
    finish_fails(g, "name longer than 47 bytes");
}
END_TEST

/* What reads x - two experts and a gate - is one product with neighbouring weights; the rest stays apart. */
START_TEST(test_bundles)
{
    slu_graph *g = slu_graph_new(5, 1);
    slu_node_id x = slu_graph_input(g), experts[2];
    experts[0] = slu_graph_mlp(g, x, (uint32_t[]){3, 4}, 2, SLU_NET_NORM_NONE, "e0");
    experts[1] = slu_graph_mlp(g, x, (uint32_t[]){6, 4}, 2, SLU_NET_NORM_NONE, "e1");
    slu_node_id gate = slu_graph_gate(g, x, 2, "gate");
    slu_graph_logit(g, slu_graph_mixture(g, gate, experts, 2, "mix"), "logit");
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(slu_graph_finish(g, &err) == 0, "%s", err.message);
    ck_assert_uint_eq(g->n_steps, 6); /* bundle, two second layers, softmax, mixture, logit */
    ck_assert_uint_eq(g->steps[0].n, 3);
    ck_assert_uint_eq(g->steps[0].width, 3 + 6 + 2);
    static const char *const names[] = {"e0.0.weight", "e1.0.weight", "gate.weight", "e0.0.bias",
                                        "e1.0.bias"};
    static const size_t offsets[] = {0, 15, 45, 55, 58};
    for (int i = 0; i < 5; i++) {
        ck_assert_str_eq(g->params[i].name, names[i]);
        ck_assert_uint_eq(g->params[i].offset, offsets[i]);
    }
    ck_assert_uint_eq(g->n_trainable, 64 + (3 * 4 + 4) + (6 * 4 + 4) + (4 + 1));
    slu_graph_free(g);
}
END_TEST

/* Logits keep the order in which they were added, also when some read the same node. */
START_TEST(test_logit_columns)
{
    slu_graph *g = slu_graph_new(5, 3);
    slu_node_id x = slu_graph_input(g), tower = slu_graph_dense(g, x, 4, SLU_DENSE_RELU, "tower");
    slu_graph_logit(g, x, "l0");
    slu_graph_logit(g, tower, "l1");
    slu_graph_logit(g, x, "l2");
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(slu_graph_finish(g, &err) == 0, "%s", err.message);
    for (uint32_t i = 0, t = 0; i < g->n_nodes; i++)
        if (g->nodes[i].logit) {
            ck_assert_uint_eq(g->nodes[i].buffer, SLU_BUFFER_LOGITS);
            ck_assert_uint_eq(g->nodes[i].column, t++);
        }
    ck_assert_uint_eq(g->columns[SLU_BUFFER_LOGITS], 3);
    slu_graph_free(g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("graph");
    TCase *t = tcase_create("graph");
    tcase_add_test(t, test_mistakes);
    tcase_add_test(t, test_bundles);
    tcase_add_test(t, test_logit_columns);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
