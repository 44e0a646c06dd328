#include "store/backup_tool.h"
#include "store/backup.h"
#include "store/keeper.h"
#include "store/verify.h"
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

const char slu_backup_tool_help[] =
    "  sluice-store backup  --store DIR [--to DIR]   a checked copy of the last commit, made by the daemon "
    "that "
    "has the\n"
    "                       store open, or here when none has; --to: where (default: the daemon's "
    "backup.path)\n"
    "  sluice-store verify  --store DIR | --backup DIR   reads all of it: checksums, values, balances, sums\n"
    "  sluice-store restore --backup DIR --store DIR [--replace] [--hold]   checks the backup, copies it "
    "there; "
    "--replace\n"
    "                       keeps what was there beside; the daemon must be stopped\n"
    "  sluice-store hold    --store DIR   a scorer stays at the version that it has, also after restarts\n"
    "  sluice-store release --store DIR   and follows its trainer again\n";

typedef struct wishes {
    const char *store, *backup, *to;
    bool replace, hold;
} wishes;

static int refuse(const char *command, const char *what)
{
    fprintf(stderr, "sluice-store %s: %s. Try sluice-store --help.\n", command, what);
    return 2;
}

static int report(int rc, const slu_error *err)
{
    if (rc)
        fprintf(stderr, "sluice-store: %s\n", err->message);
    return rc != 0;
}

/* ---- backup ---- */

static int backup_here(const wishes *w, slu_backup *b, slu_error *err)
{
    slu_store *s;
    slu_store_config config = {.path = w->store, .block_cache_bytes = 32 << 20, .sync = true};
    if (!w->to)
        return slu_fail(err, SLU_EINVAL, "no daemon has %s open; say where the backup goes with --to DIR",
                        w->store);
    int rc = slu_store_open(&config, &s, err);
    if (!rc)
        rc = slu_backup_make(s, w->to, b, err);
    slu_store_close(s);
    return rc;
}

static int backup(const wishes *w)
{
    slu_backup b;
    slu_error err = SLU_ERROR_INIT;
    char to[4096];
    if (!w->store)
        return refuse("backup", "--store DIR is missing");
    /* The daemon has another working directory. */
    if (w->to && *w->to != '/' && getcwd(to, sizeof to / 2)) {
        snprintf(to + strlen(to), sizeof to / 2, "/%s", w->to);
    } else if (w->to) {
        snprintf(to, sizeof to, "%s", w->to);
    }
    int rc = slu_keeper_ask(w->store, w->to ? to : NULL, b.path, &err);
    if (rc == SLU_ENOTFOUND)
        rc = backup_here(w, &b, &err);
    if (!rc)
        printf("%s\n", b.path);
    return report(rc, &err);
}

/* ---- verify ---- */

static void say(void *ctx, bool bad, const char *line)
{
    (void)ctx;
    printf("%s %s\n", bad ? "WRONG" : "ok   ", line);
}

static void progress(void *ctx, const char *family, uint64_t entries)
{
    (void)ctx;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s: %" PRIu64 " entries", family, entries);
}

static int verify(const wishes *w)
{
    slu_backup b;
    slu_store *s;
    slu_error err = SLU_ERROR_INIT;
    int rc = 0;
    if (!w->store == !w->backup)
        return refuse("verify", "wants --store DIR or --backup DIR");
    if (w->backup) {
        rc = slu_backup_check(w->backup, &b, &err);
        if (rc)
            return report(rc, &err);
        printf("ok    %" PRIu64 " files, %" PRIu64
               " bytes, all hashes as noted; a %s's store at version %" PRIu64 "\n",
               b.files, b.bytes, b.trainer ? "trainer" : "scorer", b.version);
    }
    slu_store_config config = {
        .path = w->store ? w->store : w->backup, .block_cache_bytes = 32 << 20, .read_only = true};
    slu_verify v = {.say = say, .progress = progress};
    rc = slu_store_open(&config, &s, &err);
    if (!rc)
        rc = slu_verify_store(s, &v, &err);
    slu_store_close(s);
    if (rc > 0) {
        printf("%d findings: restore a backup (a scorer's store can be deleted)\n", rc);
        return 1;
    }
    if (!rc)
        puts("everything agrees");
    return report(rc, &err);
}

/* ---- restore, hold ---- */

static int restore(const wishes *w)
{
    char aside[4096];
    slu_error err = SLU_ERROR_INIT;
    if (!w->store || !w->backup)
        return refuse("restore", "wants --backup DIR and --store DIR");
    int rc = slu_backup_restore(w->backup, w->store, w->replace, w->hold, aside, &err);
    if (!rc && aside[0])
        printf("what was there is at %s\n", aside);
    if (!rc)
        printf("restored %s from %s%s\n", w->store, w->backup, w->hold ? ", held" : "");
    return report(rc, &err);
}

static int set_hold(const wishes *w, bool on)
{
    slu_error err = SLU_ERROR_INIT;
    if (!w->store)
        return refuse(on ? "hold" : "release", "--store DIR is missing");
    return report(slu_hold(w->store, on, &err), &err);
}

static int hold(const wishes *w)
{
    return set_hold(w, true);
}

static int let_go(const wishes *w)
{
    return set_hold(w, false);
}

bool slu_backup_tool(int argc, char **argv, int *status)
{
    static const struct {
        const char *name;
        int (*run)(const wishes *w);
    } commands[] = {
        {"backup", backup}, {"verify", verify}, {"restore", restore}, {"hold", hold}, {"release", let_go}};
    static const struct option options[] = {
        {"store", required_argument, NULL, 's'}, {"backup", required_argument, NULL, 'b'},
        {"to", required_argument, NULL, 't'},    {"replace", no_argument, NULL, 'r'},
        {"hold", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0},
    };
    wishes w = {0};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (argc < 2 || strcmp(argv[1], commands[i].name))
            continue;
        *status = 0;
        for (int c; (c = getopt_long(argc - 1, argv + 1, "", options, NULL)) != -1;) {
            const char **texts[] = {['s'] = &w.store, ['b'] = &w.backup, ['t'] = &w.to};
            if (c == 'r')
                w.replace = true;
            else if (c == 'h')
                w.hold = true;
            else if (c == 's' || c == 'b' || c == 't')
                *texts[c] = optarg;
            else
                *status = 2;
        }
        if (optind != argc - 1)
            *status = 2;
        *status = *status ? refuse(argv[1], "wrong usage") : commands[i].run(&w);
        if (fflush(stdout) || ferror(stdout))
            *status = 1;
        return true;
    }
    return false;
}
