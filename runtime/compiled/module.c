/* murho.runtime._compiled: the door from Python. Arrays come as buffers; _compiled.pyi tells their shapes. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "draw.h"
#include "lstm.h"

#include <stdint.h>
#include <string.h>

/* Sizes come from files of strangers: every product is checked before it is trusted. */

static int product(size_t *result, const size_t *sizes, int count) {
    size_t total = 1;
    for (int k = 0; k < count; k++) {
        if (sizes[k] && total > (size_t)PY_SSIZE_T_MAX / sizes[k]) return 0;
        total *= sizes[k];
    }
    *result = total;
    return 1;
}

#define PRODUCT(result, ...) \
    product(result, (const size_t[]){__VA_ARGS__}, (int)(sizeof((const size_t[]){__VA_ARGS__}) / sizeof(size_t)))

/* Look into a contiguous, aligned array of float ('f') or int64 ('q'). */
static int look(PyObject *object, Py_buffer *view, char type, int writable) {
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0))) return 0;
    const char *format = view->format ? view->format : "B";
    if (*format == '@' || *format == '=') format++;
    const size_t size = type == 'f' ? sizeof(float) : sizeof(int64_t);
    const int named = type == 'f' ? !strcmp(format, "f") : !strcmp(format, "q") || !strcmp(format, "l");
    if (named && (size_t)view->itemsize == size && (uintptr_t)view->buf % size == 0) return 1;
    PyBuffer_Release(view);
    PyErr_Format(PyExc_TypeError, "expected an aligned array of %s", type == 'f' ? "float32" : "int64");
    return 0;
}

static int look_at_all(PyObject **objects, Py_buffer *views, const char *types, int inputs) {
    for (int k = 0; types[k]; k++)
        if (!look(objects[k], &views[k], types[k], k >= inputs)) {
            while (k--) PyBuffer_Release(&views[k]);
            return 0;
        }
    return 1;
}

static void release(Py_buffer *views, int count) {
    while (count--) PyBuffer_Release(&views[count]);
}

static size_t length(const Py_buffer *view) { return (size_t)view->len / (size_t)view->itemsize; }

static PyObject *draw(PyObject *module, PyObject *arguments) {
    enum { DRAWS, MU, SIGMA, OUT, COUNT };
    PyObject *objects[COUNT];
    Py_buffer views[COUNT];
    long long seed, stream;
    size_t values;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OLLOOO", &objects[DRAWS], &seed, &stream, &objects[MU], &objects[SIGMA],
                          &objects[OUT]))
        return NULL;
    if (!look_at_all(objects, views, "qfff", OUT)) return NULL;
    const size_t count = length(&views[DRAWS]), n = length(&views[MU]);
    const int fits = stream >= 0 && stream <= UINT32_MAX && n <= UINT32_MAX && length(&views[SIGMA]) == n &&
                     PRODUCT(&values, count, n, sizeof(float)) && (size_t)views[OUT].len == values;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        murho_draw(views[DRAWS].buf, count, (uint64_t)seed, (uint32_t)stream, views[MU].buf, views[SIGMA].buf, n,
                   views[OUT].buf);
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_ValueError, "expected draws int64 [S], mu and sigma float32 [n], out float32 [S, n]");
    }
    release(views, COUNT);
    if (!fits) return NULL;
    Py_RETURN_NONE;
}

static PyObject *lstm(PyObject *module, PyObject *arguments) {
    enum { X, H, C, WEIGHT, SEQUENCE, H_LAST, C_LAST, COUNT };
    PyObject *objects[COUNT];
    Py_buffer views[COUNT];
    Py_ssize_t given[5];
    int inputs_first;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "(nnnnn)OOOOpOOO", &given[0], &given[1], &given[2], &given[3], &given[4],
                          &objects[X], &objects[H], &objects[C], &objects[WEIGHT], &inputs_first, &objects[SEQUENCE],
                          &objects[H_LAST], &objects[C_LAST]))
        return NULL;
    if (!look_at_all(objects, views, "fffffff", SEQUENCE)) return NULL;
    size_t sizes[COUNT];
    for (int k = 0; k < COUNT; k++) sizes[k] = length(&views[k]);
    int fits = 1;
    for (int k = 0; k < 5; k++) fits = fits && given[k] >= (k < 3 ? 0 : 1);
    const size_t draws = (size_t)given[0], rows = (size_t)given[1], steps = (size_t)given[2], inputs = (size_t)given[3],
                 hidden = (size_t)given[4], most = PY_SSIZE_T_MAX / 4;
    size_t x_one, x_all, state_one, state_all, weights, outputs;
    fits = fits && inputs < most && hidden < most && PRODUCT(&x_one, rows, steps, inputs) &&
           PRODUCT(&x_all, draws, x_one) && PRODUCT(&state_one, rows, hidden) && PRODUCT(&state_all, draws, state_one) &&
           PRODUCT(&weights, draws, 4, hidden, inputs + hidden + 1) && PRODUCT(&outputs, state_all, steps) &&
           (sizes[X] == x_one || sizes[X] == x_all) && (sizes[H] == state_one || sizes[H] == state_all) &&
           sizes[C] == sizes[H] && sizes[WEIGHT] == weights && (!sizes[SEQUENCE] || sizes[SEQUENCE] == outputs) &&
           sizes[H_LAST] == state_all && sizes[C_LAST] == state_all;
    int failed = 0;
    if (fits && draws && rows) {
        const struct lstm work = {
            .draws = draws, .rows = rows, .steps = steps, .inputs = inputs, .hidden = hidden,
            .x = views[X].buf, .x_draw = sizes[X] == x_one ? 0 : x_one,
            .h = views[H].buf, .c = views[C].buf, .state_draw = sizes[H] == state_one ? 0 : state_one,
            .weight = views[WEIGHT].buf,
            .next_gate = inputs_first ? 1 : inputs + hidden + 1, .next_input = inputs_first ? 4 * hidden : 1,
            .sequence = sizes[SEQUENCE] ? views[SEQUENCE].buf : NULL,
            .h_last = views[H_LAST].buf, .c_last = views[C_LAST].buf,
        };
        Py_BEGIN_ALLOW_THREADS
        failed = murho_lstm(&work);
        Py_END_ALLOW_THREADS
        if (failed) PyErr_NoMemory();
    } else if (!fits) {
        PyErr_SetString(PyExc_ValueError, "arrays do not have the sizes (draws, rows, steps, inputs, hidden)");
    }
    release(views, COUNT);
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
