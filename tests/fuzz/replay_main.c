/* Runs a fuzz target over files and over all files of folders, each once: the regression test of a corpus. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static int runs;

static void replay_file(const char *path, size_t n)
{
    FILE *f = fopen(path, "rb");
    uint8_t *bytes =
        malloc(n ? n : 1); /* exactly as long as the input, so that sanitizers see every overrun */
    if (!f || !bytes || fread(bytes, 1, n, f) != n) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    fclose(f);
    printf("%s (%zu bytes)\n", path, n); /* the last line names the culprit of a crash */
    fflush(stdout);
    LLVMFuzzerTestOneInput(bytes, n);
    free(bytes);
    runs++;
}

static void replay(const char *path)
{
    struct stat st;
    struct dirent **entries;
    if (stat(path, &st)) {
        fprintf(stderr, "there is no %s\n", path);
        exit(1);
    }
    if (!S_ISDIR(st.st_mode)) {
        replay_file(path, (size_t)st.st_size);
        return;
    }
    int n = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char inner[4096];
        if (entries[i]->d_name[0] != '.') {
            snprintf(inner, sizeof inner, "%s/%s", path, entries[i]->d_name);
            replay(inner);
        }
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        replay(argv[i]);
    printf("%d inputs\n", runs);
    return runs ? 0 : 1; /* an empty corpus tests nothing */
}
