"""Counts of the code's structure: what a refactoring should bring down, measured before and after it.

    python -m tests.support.structure                    all numbers, short
    python -m tests.support.structure.post_path          files and functions on the path of a post (--trace)
    python -m tests.support.structure.shared_attributes  attributes of cells, jobs and runs, several writers
    python -m tests.support.structure.classes            attributes of each class; those of the engine
    python -m tests.support.structure.functions          length, parameters, functions that take the engine
    python -m tests.support.structure.sizes              files and lines by folder, long lines, subjects
    python -m tests.support.structure.imports            circles between modules, arrows up the layers

Nothing here depends on where a module lies: classes are found by name, modules by reading the folders.
"""
