"""`python -m batchllm`."""

from batchllm.cli import main

main()
