"""Downloads that can be resumed, and archives that are checked before they are unpacked."""
