#include "base/broker_hint.h"
#include <stddef.h>
#include <string.h>

const char *slu_broker_hint(const char *reason)
{
    /* The first that fits: what is more exact stands further up. */
    static const struct {
        const char *words, *remedy;
    } hints[] = {
        {"Unsupported SASL mechanism", "set kafka.rdkafka.sasl.mechanism to one that the broker offers"},
        {"SASL mechanism SCRAM",
         "correct kafka.rdkafka.sasl.username and kafka.rdkafka.sasl.password; librdkafka before 2.6.1 "
         "cannot log in "
         "to newer brokers by SCRAM (Kafka 4): update it, or use sasl.mechanism PLAIN over TLS"},
        {"SASL authentication error",
         "correct kafka.rdkafka.sasl.username and kafka.rdkafka.sasl.password, and look at sasl.mechanism"},
        {"ertificate verify failed",
         "set kafka.rdkafka.ssl.ca.location to the authority that has signed the broker's certificate, and "
         "kafka.brokers to a name that it was made for"},
        {"IP address mismatch", "set kafka.brokers to a name that the broker's certificate was made for"},
        {"hostname mismatch", "set kafka.brokers to a name that the broker's certificate was made for"},
        {"ertificate required", "the broker wants a client certificate: "
                                "kafka.rdkafka.ssl.certificate.location and ssl.key.location"},
        {"bad certificate", "the broker does not take this client certificate: renew "
                            "kafka.rdkafka.ssl.certificate.location and ssl.key.location"},
        {"unknown ca", "the broker does not know who has signed kafka.rdkafka.ssl.certificate.location"},
        {"wrong version number",
         "the broker speaks no TLS on this port: set kafka.brokers to its TLS listener, or "
         "another kafka.rdkafka.security.protocol"},
        {"SSL handshake failed", "look at kafka.rdkafka.ssl.* and at the broker's log"},
        {"uthorization failed", "grant the rights on topic and group to this user"},
        {"Connection refused", "start the broker or set kafka.brokers"},
        {"brokers are down",
         "start the broker or set kafka.brokers; one that hangs up without a word wants another "
         "kafka.rdkafka.security.protocol"},
        {"Disconnected",
         "start the broker or set kafka.brokers; one that hangs up without a word wants another "
         "kafka.rdkafka.security.protocol"},
    };
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (strstr(reason, hints[i].words))
            return hints[i].remedy;
    return "start the broker or set kafka.brokers";
}
