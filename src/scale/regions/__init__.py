"""Where on a slide to look: windows without slivers, where there is tissue, sections and their pieces."""
