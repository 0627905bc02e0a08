#!/bin/sh
# Fuzz every decoder of coded weights: fuzz.sh [RUNS], a million each unless told; needs clang. Run from the repository's root.
set -eu
runs=${1:-1000000}
work=${FUZZ_FOLDER:-.cache/fuzz}
mkdir -p "$work"
.venv/bin/python tests/fuzz/seeds.py "$work/seeds"
fuzz() {
    name=$1
    shift
    clang -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Icsrc -o "$work/$name" "tests/fuzz/fuzz_$name.c" "$@" csrc/cpu.c -lm
    mkdir -p "$work/corpus/$name"
    "$work/$name" -runs="$runs" -max_len=32768 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="$work/" "$work/corpus/$name" "$work/seeds/$name"
}
fuzz rans csrc/coding/rans_table.c csrc/coding/rans_decode.c csrc/coding/rans_avx2.c
fuzz huffman csrc/coding/huffman_table.c csrc/coding/huffman_decode.c csrc/coding/huffman_small.c
fuzz tunstall csrc/coding/tunstall_table.c csrc/coding/tunstall_build.c csrc/coding/tunstall_decode.c csrc/coding/tunstall_small.c
fuzz arithmetic csrc/coding/arithmetic.c csrc/coding/arithmetic_adaptive.c
fuzz cabac csrc/coding/cabac_encode.c csrc/coding/cabac_decode.c
