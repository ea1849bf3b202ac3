"""The mesh, logical axis rules, and products with weights cut over fsdp."""
