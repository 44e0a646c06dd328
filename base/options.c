#include "base/options.h"
#include "base/bytes.h"
#include "base/options_parts.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

int slu_options_parse(const char *yaml, size_t len, const char *name, const char *const *sets, size_t n_sets,
                      slu_options **op, slu_error *err)
{
    slu_tree tree;
    slu_error spare = SLU_ERROR_INIT;
    if (!err)
        err = &spare;
    assert(!err->code);
    *op = NULL;
    int rc = slu_tree_parse(&tree, yaml, len, name, err);
    for (size_t i = 0; i < n_sets && !rc; i++)
        rc = slu_options_set(&tree, sets[i], err);
    if (!rc)
        rc = slu_options_check(&tree, err);
    if (!rc)
        rc = slu_options_derive(&tree, err);
    if (!rc)
        rc = slu_options_bind(&tree, op, err);
    if (!rc)
        rc = slu_options_rules(&tree, *op, err);
    if (rc) {
        slu_options_free(*op);
        *op = NULL;
    }
    slu_tree_free(&tree);
    return rc;
}

/* Reads up to a little more than a configuration may have, so that the parser can say that it is too much. */
static int read_file(const char *path, slu_buf *text, slu_error *err)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return slu_fail(err, SLU_EIO, "cannot open configuration %s: %s", path, strerror(errno));
    size_t n, most = (size_t)5 << 20;
    do {
        n = fread(slu_buf_reserve(text, 1 << 16), 1, 1 << 16, f);
        text->len += n;
    } while (n && text->len < most);
    int rc = 0;
    if (ferror(f))
        rc = slu_fail(err, SLU_EIO, "cannot read configuration %s: %s", path, strerror(errno));
    fclose(f);
    return rc;
}

int slu_options_load(const char *path, const char *const *sets, size_t n_sets, slu_options **op,
                     slu_error *err)
{
    slu_buf text = SLU_BUF_INIT;
    *op = NULL;
    int rc = read_file(path, &text, err);
    if (!rc)
        rc = slu_options_parse((const char *)text.data, text.len, path, sets, n_sets, op, err);
    slu_buf_free(&text);
    return rc;
}
