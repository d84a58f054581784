"""Label maps go out in the forms that annotation tools and trainings read: a module per form, and
the one function that writes them, `write.export_labels`.
"""
