/* tls_certificates DIRECTORY: what the tests of TLS need, made anew at each call. ca.pem signs server,
 * renewed, expired (a server), client and old-client (expired); other-ca.pem signs other-client. Each NAME is
 * NAME.pem and NAME.key; broker.pem is key and certificate of a broker in one file. */
#include "tests/tls_sample.h"

static const char *in(const char *directory, const char *name, const char *end)
{
    static char paths[4][512];
    static int at;
    char *path = paths[at++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s%s", directory, name, end);
    return path;
}

static void issue(const char *directory, const tls_authority *a, const char *name, const char *use,
                  long until)
{
    tls_issue(a, name, use, -60 * TLS_DAY, until, in(directory, name, ".pem"), in(directory, name, ".key"));
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: tls_certificates DIRECTORY\n");
        return 2;
    }
    const char *d = argv[1];
    tls_authority ca = tls_authority_new("Test CA", -90 * TLS_DAY, 300 * TLS_DAY);
    tls_authority other = tls_authority_new("Other CA", -90 * TLS_DAY, 300 * TLS_DAY);
    tls_write(ca.certificate, in(d, "ca", ".pem"), "w");
    tls_write(other.certificate, in(d, "other-ca", ".pem"), "w");
    issue(d, &ca, "server", "serverAuth", 90 * TLS_DAY);
    issue(d, &ca, "renewed", "serverAuth", 90 * TLS_DAY);
    issue(d, &ca, "third", "serverAuth", 90 * TLS_DAY);
    issue(d, &ca, "expired", "serverAuth", -TLS_DAY);
    issue(d, &ca, "client", "clientAuth", 90 * TLS_DAY);
    issue(d, &ca, "old-client", "clientAuth", -TLS_DAY);
    issue(d, &other, "other-client", "clientAuth", 90 * TLS_DAY);
    tls_issue(&ca, "broker", "serverAuth,clientAuth", -TLS_DAY, 90 * TLS_DAY, in(d, "broker-only", ".pem"),
              in(d, "broker", ".pem"));
    FILE *f = fopen(in(d, "broker-only", ".pem"), "r");
    X509 *x = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
    tls_must(x != NULL, "reading back");
    fclose(f);
    tls_write(x, in(d, "broker", ".pem"), "a");
    X509_free(x);
    tls_authority_free(&ca);
    tls_authority_free(&other);
    return 0;
}
