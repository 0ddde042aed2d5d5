"""TensorRT of any generation, and TensorRT for RTX: builder, engine inspector and engine sessions."""
