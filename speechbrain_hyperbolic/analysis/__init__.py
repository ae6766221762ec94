"""Pictures of a trained folder, see ``__main__``."""
