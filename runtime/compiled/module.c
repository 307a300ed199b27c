/* murho.runtime._compiled: the door from Python. Arrays come as buffers; _compiled.pyi tells their shapes. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "draw.h"
#include "lstm.h"

static PyObject *draw(PyObject *module, PyObject *arguments) {
    Py_buffer draws, mu, sigma, out;
    long long seed;
    unsigned long stream;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*Lky*y*w*", &draws, &seed, &stream, &mu, &sigma, &out)) return NULL;
    const Py_ssize_t count = draws.len / (Py_ssize_t)sizeof(int64_t), n = mu.len / (Py_ssize_t)sizeof(float);
    const int fits = mu.len == sigma.len && out.len == count * mu.len;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        murho_draw(draws.buf, (size_t)count, (uint64_t)seed, (uint32_t)stream, mu.buf, sigma.buf, (size_t)n, out.buf);
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_ValueError, "expected draws int64 [S], mu and sigma float32 [n], out float32 [S, n]");
    }
    PyBuffer_Release(&draws);
    PyBuffer_Release(&mu);
    PyBuffer_Release(&sigma);
    PyBuffer_Release(&out);
    if (!fits) return NULL;
    Py_RETURN_NONE;
}

static PyObject *lstm(PyObject *module, PyObject *arguments) {
    Py_buffer x, h, c, weight, sequence, h_last, c_last;
    Py_ssize_t draws, rows, steps, inputs, hidden;
    int inputs_first;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "(nnnnn)y*y*y*y*pw*w*w*", &draws, &rows, &steps, &inputs, &hidden, &x, &h, &c,
                          &weight, &inputs_first, &sequence, &h_last, &c_last))
        return NULL;
    const Py_ssize_t number = sizeof(float), state = rows * hidden * number, values = rows * steps * inputs * number;
    const int fits = (x.len == values || x.len == draws * values) && (h.len == state || h.len == draws * state) &&
                     c.len == h.len && weight.len == draws * 4 * hidden * (inputs + hidden + 1) * number &&
                     (sequence.len == 0 || sequence.len == draws * steps * state) && h_last.len == draws * state &&
                     c_last.len == draws * state;
    int failed = 0;
    if (fits) {
        const struct lstm work = {
            .draws = (size_t)draws, .rows = (size_t)rows, .steps = (size_t)steps,
            .inputs = (size_t)inputs, .hidden = (size_t)hidden,
            .x = x.buf, .x_draw = x.len == values ? 0 : (size_t)(values / number),
            .h = h.buf, .c = c.buf, .state_draw = h.len == state ? 0 : (size_t)(state / number),
            .weight = weight.buf,
            .next_gate = inputs_first ? 1 : (size_t)(inputs + hidden + 1),
            .next_input = inputs_first ? (size_t)(4 * hidden) : 1,
            .sequence = sequence.len ? sequence.buf : NULL, .h_last = h_last.buf, .c_last = c_last.buf,
        };
        Py_BEGIN_ALLOW_THREADS
        failed = murho_lstm(&work);
        Py_END_ALLOW_THREADS
        if (failed) PyErr_NoMemory();
    } else {
        PyErr_SetString(PyExc_ValueError, "arrays do not have the sizes (draws, rows, steps, inputs, hidden)");
    }
    PyBuffer_Release(&x);
    PyBuffer_Release(&h);
    PyBuffer_Release(&c);
    PyBuffer_Release(&weight);
    PyBuffer_Release(&sequence);
    PyBuffer_Release(&h_last);
    PyBuffer_Release(&c_last);
    if (failed || !fits) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"draw", draw, METH_VARARGS, NULL},
    {"lstm", lstm, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_compiled", .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModuleDef_Init(&definition); }
