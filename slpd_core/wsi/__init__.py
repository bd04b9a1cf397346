"""Reading whole-slide images: any region at any resolution, and errors that name what cannot be read."""
