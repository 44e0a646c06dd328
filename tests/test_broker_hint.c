/* The reasons are what librdkafka 2.0 said to a real broker. */
#include "base/broker_hint.h"
#include "tests/suite.h"
#include <string.h>

static void hints_at(const char *reason, const char *key)
{
    const char *hint = slu_broker_hint(reason);
    ck_assert_msg(strstr(hint, key), "%s: %s", reason, hint);
}

START_TEST(test_hints)
{
    hints_at("sasl_ssl://127.0.0.1:9093/bootstrap: SASL authentication error: Authentication failed: Invalid "
             "username or password (after 332ms in state AUTH_REQ)",
             "sasl.password");
    hints_at("SASL authentication error: Authentication failed during authentication due to invalid "
             "credentials with "
             "SASL mechanism SCRAM-SHA-512",
             "librdkafka before 2.6.1");
    hints_at("SASL SCRAM-SHA-256 mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's "
             "supported "
             "mechanisms: PLAIN,SCRAM-SHA-512",
             "sasl.mechanism");
    hints_at("SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker "
             "certificate could "
             "not be verified",
             "ssl.ca.location");
    hints_at("error:0A000086:SSL routines::certificate verify failed (after 12ms in state SSL_HANDSHAKE)",
             "ssl.ca.location");
    hints_at("SSL handshake failed: error:0A00010B:SSL routines::wrong version number", "security.protocol");
    hints_at("SSL handshake failed: ssl/record/rec_layer_s3.c:1543: tlsv13 alert certificate required",
             "ssl.certificate.location");
    hints_at("1/1 brokers are down", "security.protocol");
    hints_at("Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
             "start the broker or set kafka.brokers");
    hints_at("", "start the broker or set kafka.brokers");
}
END_TEST

int main(void)
{
    return run_suite("broker_hint", (const TTest *[]){test_hints, NULL});
}
