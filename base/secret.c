#include "base/secret.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define BEGINNING 12 /* bytes of a secret that give it away */

typedef struct secret {
    struct secret *next;
    size_t len;
    char text[];
} secret;

static _Atomic(secret *) secrets; /* readers walk it without a lock: entries never change or go away */
static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;
static unsigned count;

bool slu_secret_key(const char *key)
{
    static const char *const parts[] = {"password", "passwd",  "passphrase", "secret",
                                        "token",    "ssl.key", "keystore",   ".pem",
                                        "private",  "api.key", "credential", "oauthbearer.config"};
    if (strcasestr(key, ".location") || strcasestr(key, "token.endpoint"))
        return false;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strcasestr(key, parts[i]))
            return true;
    return false;
}

static bool listed(const char *value)
{
    for (const secret *s = atomic_load(&secrets); s; s = s->next)
        if (!strcmp(s->text, value))
            return true;
    return false;
}

void slu_secret_add(const char *value)
{
    size_t len = strlen(value);
    if (len < SLU_SECRET_LEAST)
        return;
    pthread_mutex_lock(&adding);
    secret *s = count < SLU_SECRETS_MOST && !listed(value) ? malloc(sizeof *s + len + 1) : NULL;
    if (s) {
        s->len = len;
        memcpy(s->text, value, len + 1);
        s->next = atomic_load(&secrets);
        atomic_store(&secrets, s);
        count++;
    }
    pthread_mutex_unlock(&adding);
}

bool slu_secret_known(void)
{
    return atomic_load_explicit(&secrets, memory_order_relaxed) != NULL;
}

/* Bytes at |at| that belong to a secret: the whole one, or as much of it as there is from its beginning on.
 */
static size_t length_at(const char *at)
{
    size_t longest = 0;
    for (const secret *s = atomic_load(&secrets); s; s = s->next) {
        size_t n = 0;
        while (n < s->len && at[n] == s->text[n])
            n++;
        if (n >= (s->len < BEGINNING ? s->len : BEGINNING) && n > longest)
            longest = n;
    }
    return longest;
}

char *slu_secret_mask(const char *text, char *out, size_t size)
{
    size_t n = 0;
    while (*text && n + 4 <= size) {
        size_t hidden = length_at(text);
        if (hidden) {
            memcpy(out + n, "***", 3);
            n += 3;
            text += hidden;
        } else {
            out[n++] = *text++;
        }
    }
    if (size)
        out[n] = 0;
    return out;
}
