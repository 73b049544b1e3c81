"""What every part of the project may use and none of it is about: errors, files, progress, points, the hub."""
