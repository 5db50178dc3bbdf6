"""One model, several formats and factors: a front of bytes, metric and multiply-adds goes out.

formats x factors -> jobs -> batch -> points -> front -> table, JSON, picture
                                                      -> pick: an artifact and its recipe
"""
