"""The benchmark grid: model x variant x device x loader x batch x size, from its cells to what they mean."""
