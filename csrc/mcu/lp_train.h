/* Training on the device: steps of gradient descent on the classifier and on biases, in float32.
 *
 * Every result is the same on every processor with IEEE float32, with or without a floating-point unit: each statement rounds once,
 * sums run in the order written, and the exponential is a polynomial of its own. Compilers are kept from fusing products and sums. */
#ifndef LP_TRAIN_H
#define LP_TRAIN_H

#include "lp.h"

#if defined(__FAST_MATH__)
#error "compile training without -ffast-math: it would give other results on every processor"
#elif defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int32_t features, classes;
    float scale; /* of the features */
    int32_t zero;
} lp_head;

typedef struct {
    const int8_t *weights; /* as lp_conv has them */
    const float *scales;   /* of the weights of each filter */
    const int32_t *bias;   /* of the program, folded */
    const float *units;    /* steps of the bias in 1, for each filter */
    int32_t in_h, in_w, in_c, out_h, out_w, out_c, groups;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t filter, tap;   /* how far apart the weights of filters and of taps are */
    int32_t low, high;     /* codes at which the gradient ends; whole: of a mean, padding counts */
    int32_t whole;
} lp_back;

/* scores = bias + weights x */
void lp_train_scores(const lp_head *p, const float *weights, const float *bias, const int8_t *features, float *scores);
/* The number of the largest score; scores become the gradient of the cross-entropy: softmax(scores), less 1 at the label. */
int lp_train_gradient(const lp_head *p, float *scores, int label);
/* back = weights' gradient, if back is not null; then weights -= rate gradient x, bias -= rate gradient. */
void lp_train_head(const lp_head *p, float *weights, float *bias, const int8_t *features, const float *gradient, float rate, float *back);
/* Biases of a layer for the integer kernels: those of the program and the change so far. */
void lp_train_fold(const lp_back *p, const float *change, int32_t *bias);
/* A bit for every code that lies between the limits. */
void lp_train_mask(const lp_back *p, const int8_t *out, uint8_t *mask);
/* gradient = 0 where the mask has no bit. */
void lp_train_apply(const lp_back *p, const uint8_t *mask, float *gradient);
/* change -= rate * the gradient's sum over pixels. */
void lp_train_bias(const lp_back *p, const float *gradient, float *change, float rate);
/* Gradients of inputs. */
void lp_train_conv(const lp_back *p, const float *gradient, float *back);
void lp_train_mean(const lp_back *p, const float *gradient, float *back);

#ifdef __cplusplus
}
#endif

#endif
