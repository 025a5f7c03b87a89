# mmseg's SegFormer: its feed-forward branch is that of PVT v2.
_base_ = 'pvtv2.py'
