# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""The generated calls, a module for each group of csrc/tinynn.h."""
