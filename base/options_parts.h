/* base/options_parts.h - the stations between a YAML text and an slu_options, in the order in which a
 * configuration passes them. For base/options*.c only. Each returns 0 or fills |err| (SLU_ECONFIG,
 * SLU_ENOMEM). */
#pragma once
#include "base/options_table.h"
#include "base/options_yaml.h"

/* options_set.c: puts the value of one "key=value" into the tree. The key is a path of the table, entries of
 * lists go by index or name: "model.towers=[64]", "features.item_id.dimension=8",
 * "funnel.steps[0].window=2h". */
int slu_options_set(slu_tree *t, const char *assignment, slu_error *err);

/* options_check.c: every key against the table: known, of its type, in range. Afterwards values are in plain
 * form (durations in us, sizes in bytes, choices as numbers, rdkafka as a list of key and value) and defaults
 * are filled in. */
int slu_options_check(slu_tree *t, slu_error *err);
/* "unknown key; did you mean 'kind'? allowed: ..." for |key| below row |parent|. */
int slu_options_unknown(const slu_tree *t, const slu_node *at, const char *path, int parent, const char *key,
                        slu_error *err);

/* options_rules.c: defaults that depend on other keys, and keys of features that mean nothing where they
 * stand. */
int slu_options_derive(slu_tree *t, slu_error *err);

/* options_bind.c: hands the completed tree to libcyaml, whose schema is built from the table. */
int slu_options_bind(const slu_tree *t, slu_options **op, slu_error *err);

/* options_rules.c: what must hold between values. Fills in the side of crosses. */
int slu_options_rules(const slu_tree *t, slu_options *o, slu_error *err);
