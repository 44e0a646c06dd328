/* base/broker_hint.h - what to do when Kafka's client library says that something is wrong with a broker.
 *
 * librdkafka tells what happened, in its own words and with OpenSSL's; people want to know which key of the
 * configuration is wrong. A pure function of the words. @thread any */
#pragma once

/* The remedy for |reason|, never NULL; without a better idea: start the broker or set kafka.brokers. */
const char *slu_broker_hint(const char *reason);
