#include "../simt.h"
