// The Python module. Importing it loads the library, whose other source file registers the operators.
#include <Python.h>

#ifndef MODULE_NAME
#define MODULE_NAME _C
#endif
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define STRING_(a) #a
#define STRING(a) STRING_(a)

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, STRING(MODULE_NAME), nullptr, -1, nullptr, nullptr, nullptr,
                                 nullptr, nullptr};

PyMODINIT_FUNC JOIN(PyInit_, MODULE_NAME)(void) { return PyModule_Create(&definition); }
