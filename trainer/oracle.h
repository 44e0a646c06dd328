/* trainer/oracle.h - final labels of recorded events, read ahead: for label_policy oracle (replay only). */
#pragma once
#include "base/digest.h"
#include "trainer/source.h"

typedef struct slu_oracle slu_oracle;
/* Reads all events of |source| once and remembers which steps each impression reached inside its windows.
 * Consumes the source: open another one to replay. */
int slu_oracle_read(slu_source *source, const slu_options *options, const slu_schema *schema, slu_oracle **op,
                    slu_error *err);
void slu_oracle_free(slu_oracle *o);
/* Bit mask of steps that the impression finally has. */
uint32_t slu_oracle_steps(const slu_oracle *o, slu_hash128 impression);
uint64_t slu_oracle_events(const slu_oracle *o); /* events read */
