/* store/backup_tool.h - the commands of sluice-store that make, prove and put back copies. */
#pragma once
#include <stdbool.h>

/* True when argv[1] is one of them; *|status| is then main()'s. */
bool slu_backup_tool(int argc, char **argv, int *status);
extern const char slu_backup_tool_help[];
