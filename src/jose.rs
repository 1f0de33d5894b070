//! JOSE: the only file that names josekit.
