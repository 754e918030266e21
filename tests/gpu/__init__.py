"""What only a GPU can show. FASTADV_TEST_DEVICE=cpu rehearses the tests themselves where there is none."""
