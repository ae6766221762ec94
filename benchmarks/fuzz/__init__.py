"""Damaged and hostile files for all readers: ``python -m benchmarks.fuzz``.

A strategy of hypothesis makes the files, in this process; the reader reads
them in another, which may crash, hang or fill the memory.
"""
