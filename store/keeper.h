/* store/keeper.h - backups of a store that a daemon has open: on request and by the clock.
 *
 * A thread beside the daemon's own. Requests come through a socket "control" in the store's folder (mode
 * 0600; only the daemon's user and root are answered), so whoever may not read the store cannot ask for a
 * copy of it, and nothing listens on a network. One line in, one line out: "backup DIR" or "backup" (into the
 * daemon's own backup folder); "ok PATH" or "error WORDS". A backup that fails is logged and counted, never
 * fatal. */
#pragma once
#include "store/backup.h"

typedef struct slu_keeper slu_keeper;

typedef struct slu_keeper_config {
    slu_store *store;  /* must outlive the keeper */
    const char *dir;   /* where backups go; NULL: only where a request says */
    const char *below; /* folder below |dir|: "trainer", "scorer" */
    int64_t every_us;  /* 0: only on request */
    uint32_t keep;     /* newest backups that stay in |dir| */
} slu_keeper_config;

/* Returns 0, SLU_EIO (no socket can be made in the store's folder), SLU_ENOMEM. */
int slu_keeper_start(const slu_keeper_config *config, slu_keeper **kp, slu_error *err);
void slu_keeper_stop(slu_keeper *k); /* waits for a backup that is being made; NULL is fine */

/* The other side: asks the daemon that has |store| open. |dir| may be NULL. Returns 0 with the path of the
 * backup, SLU_ENOTFOUND (no daemon answers there; |err| is not set) or SLU_EIO with the daemon's words. */
int slu_keeper_ask(const char *store, const char *dir, char path[4096], slu_error *err);
