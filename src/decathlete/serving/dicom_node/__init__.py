"""A node of a DICOM network: receives series, segments them, and sends SEG objects back.

Series arrive by C-STORE from callers of an allow-list, or are found by polling a DICOMweb archive. Instances and jobs
are on the disk before a sender is told that they arrived, so a restart loses nothing; the same segmentation has the
same identifiers, so an archive that receives it again keeps it once.
"""
