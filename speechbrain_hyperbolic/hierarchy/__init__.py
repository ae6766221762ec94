"""How tree-like a set of points is: speaker centres, or embeddings.

All is told from the distances [N, N] between the points, in any unit, so it's
the same for Euclidean, spherical and hyperbolic points. A matrix of distances
is symmetric with zeros on the diagonal, up to 1 % of the largest distance, as
float32 may round it; it is then made so to the last bit. Float64 is better.

A caution: in many dimensions points at random are nearly all as far from each
other, which is a tree too, a star. A figure says something only beside the
same one of points without a hierarchy, see ``references.sphere_sample``, or
of labels at random, see ``dendrograms.chance``.
"""
