/* What the paths of the rANS decoder share. */
#ifndef LILLIPUT_RANS_PATHS_H
#define LILLIPUT_RANS_PATHS_H

#include "rans.h"

enum { LP_RANS_LANES = 64 };

/* Fields of an entry of the decoding table, from the lowest: the symbol (or pair), its frequency, the slot's place within the symbol's slots. */
typedef struct {
    unsigned bits;   /* slots are 2^bits */
    unsigned symbol; /* bits of the first field */
    unsigned field;  /* bits of each of the others */
} lp_rans_layout;

/* Decoding under way. */
typedef struct {
    const uint8_t *words, *end;
    const uint32_t *slots;
    uint8_t *symbols;
    size_t count, done; /* symbols in all; entries (symbols or pairs) that are decoded */
    lp_rans_layout layout;
    unsigned lanes, pairs, first;
    uint32_t states[LP_RANS_LANES];
} lp_rans_run;

/* How many lanes a chunk of so many symbols or pairs has. */
unsigned lp_rans_lanes(size_t entries);

/* Go on until `entries` are decoded; the second stops where too little is left for whole vectors. */
lp_status lp_rans_lanes_portable(lp_rans_run *run, size_t entries);
void lp_rans_lanes_avx2(lp_rans_run *run, size_t entries);

#endif
