#ifndef MURHO_LSTM_H
#define MURHO_LSTM_H

#include <stddef.h>

/* Arrays of float32, row-major: S draws of B rows, T steps, F inputs, H hidden units. */
struct lstm {
    size_t draws, rows, steps, inputs, hidden;
    const float *x;         /* [S, B, T, F], or [B, T, F] for all draws */
    size_t x_draw;          /* values from one draw's x to the next; 0 where all have the same */
    const float *h, *c;     /* first states [S, B, H], or [B, H] for all draws */
    size_t state_draw;      /* as x_draw */
    const float *weight;    /* for each draw the gates i, f, g, o of (x, h, 1), 4H of F + H + 1 */
    size_t next_gate, next_input; /* values from one to the next */
    float *sequence;        /* [S, B, T, H], or NULL */
    float *h_last, *c_last; /* [S, B, H] */
};

/* Evaluate; 0, or -1 where there is no memory. */
int murho_lstm(const struct lstm *work);

#endif
