/* The classifier: scores, cross-entropy, step. */
#include "lp_train.h"

/* exp(x) for x <= 0, to 2 units in the last place: 2^n times a polynomial of what remains; 0 below -87. */
static float exponential(float x)
{
    union {
        uint32_t bits;
        float value;
    } power;
    if (x < -87.0f) return 0.0f;
    const float turns = x * 1.44269504f;
    const int32_t n = (int32_t)(turns - 0.5f);
    const float whole = (float)n;
    float high = whole * 0.693359375f;
    float low = whole * -2.12194440e-4f;
    float r = x - high;
    r = r - low;
    static const float factors[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    float sum = factors[0];
    for (int i = 1; i < 8; i++) {
        sum = sum * r;
        sum = sum + factors[i];
    }
    power.bits = (uint32_t)(n + 127) << 23;
    return sum * power.value;
}

static float feature(const lp_head *p, int8_t code)
{
    return (float)(code - p->zero) * p->scale;
}

void lp_train_scores(const lp_head *p, const float *weights, const float *bias, const int8_t *features, float *scores)
{
    for (int32_t o = 0; o < p->classes; o++) {
        float sum = bias[o];
        for (int32_t j = 0; j < p->features; j++) {
            const float product = *weights++ * feature(p, features[j]);
            sum = sum + product;
        }
        scores[o] = sum;
    }
}

int lp_train_gradient(const lp_head *p, float *scores, int label)
{
    int best = 0;
    for (int32_t o = 1; o < p->classes; o++)
        if (scores[o] > scores[best]) best = o;
    const float most = scores[best];
    float sum = 0.0f;
    for (int32_t o = 0; o < p->classes; o++) {
        scores[o] = exponential(scores[o] - most);
        sum = sum + scores[o];
    }
    for (int32_t o = 0; o < p->classes; o++) scores[o] = scores[o] / sum;
    scores[label] = scores[label] - 1.0f;
    return best;
}

void lp_train_head(const lp_head *p, float *weights, float *bias, const int8_t *features, const float *gradient, float rate, float *back)
{
    for (int32_t j = 0; back && j < p->features; j++) back[j] = 0.0f;
    for (int32_t o = 0; o < p->classes; o++) {
        const float step = rate * gradient[o];
        for (int32_t j = 0; j < p->features; j++, weights++) {
            if (back) {
                const float part = gradient[o] * *weights;
                back[j] = back[j] + part;
            }
            const float product = step * feature(p, features[j]);
            *weights = *weights - product;
        }
        bias[o] = bias[o] - step;
    }
}
