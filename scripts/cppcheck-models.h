/* What cppcheck has to know of headers that it does not read. */
#define __builtin_expect(x, y)               (x)
#define json_array_foreach(a, i, v)          for (i = 0; i < json_array_size(a) && (v = json_array_get(a, i)); i++)
#define json_object_foreach(o, k, v)         while (next_pair(o, &k, &v))
#define json_object_foreach_safe(o, n, k, v) while (next_pair(o, &k, &v))
